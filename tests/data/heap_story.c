// SPDX-License-Identifier: MIT OR GPL-2.0
/* heap_story: one allocation story of each kind, chosen by a parameter; tests/scenario/test_heap.py says what is expected. */
#include <linux/delay.h>
#include <linux/init.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

static char *story = "";
module_param(story, charp, 0444);

struct leaf {
	u64 content[5];
	struct rcu_head rcu;
};

static void hide(u8 *block, long index, u8 value)
{
	OPTIMIZER_HIDE_VAR(block);
	WRITE_ONCE(block[index], value);
}

static void construct(void *object)
{
	memset(object, 0x11, 40);
}

static bool is_filled(const u8 *block, u8 value, size_t size)
{
	return !memchr_inv(block, value, size);
}

/* Everything right: every kind of allocation, used to its last byte, and freed. */
static int clean(void)
{
	static const size_t sizes[] = { 1, 7, 8, 9, 24, 32, 33, 64, 96, 100, 128, 192,
					500, 512, 1024, 4096, 4100, 8192, 9000, 65536 };
	struct kmem_cache *cache;
	void *several[20];
	char *text;
	u8 *block;
	int i, wrong = 0;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		block = kzalloc(sizes[i], GFP_KERNEL);
		wrong += !block || !is_filled(block, 0, sizes[i]);
		wrong += is_power_of_2(sizes[i]) && !IS_ALIGNED((unsigned long)block, sizes[i]);
		memset(block, 0x33, sizes[i]);
		block = krealloc(block, sizes[i] * 2, GFP_KERNEL);
		wrong += !block || !is_filled(block, 0x33, sizes[i]);
		memset(block, 0x44, ksize(block));
		kfree(block);
		block = kvmalloc(sizes[i] * 16, GFP_KERNEL);
		memset(block, 0x55, sizes[i] * 16);
		kvfree(block);
		block = vmalloc(sizes[i]);
		memset(block, 0x66, sizes[i]);
		vfree(block);
	}
	wrong += kmalloc(0, GFP_KERNEL) != ZERO_SIZE_PTR;
	kfree(NULL);
	kfree(ZERO_SIZE_PTR);
	text = kasprintf(GFP_KERNEL, "%d %d %d %d %d %d %d %s", 1, 2, 3, 4, 5, 6, 7, "eight");
	wrong += !text || strcmp(text, "1 2 3 4 5 6 7 eight");
	kfree(text);
	text = kstrdup("copy", GFP_KERNEL);
	wrong += !text || strcmp(text, "copy");
	kfree_const(text);
	kfree_const(kstrdup_const("constant", GFP_KERNEL));
	kfree_sensitive(kmemdup(story, 4, GFP_KERNEL));

	cache = kmem_cache_create("heap_story", 40, 0, 0, construct);
	wrong += kmem_cache_size(cache) != 40;
	for (i = 0; i < ARRAY_SIZE(several); i++) {
		several[i] = kmem_cache_alloc(cache, GFP_KERNEL);
		wrong += !several[i] || !is_filled(several[i], 0x11, 40);
	}
	for (i = 0; i < ARRAY_SIZE(several); i++)
		kmem_cache_free(cache, several[i]);
	kmem_cache_destroy(cache);
	cache = kmem_cache_create_usercopy("heap_story", 48, 16, SLAB_HWCACHE_ALIGN, 8, 16, NULL);
	i = kmem_cache_alloc_bulk(cache, GFP_KERNEL, 20, several);
	wrong += i != 20;
	kmem_cache_free_bulk(cache, i, several);
	kmem_cache_destroy(cache);
	pr_info("heap_story: %d wrong\n", wrong);
	return 0;
}

static int cache_overrun(void)
{
	struct kmem_cache *cache = kmem_cache_create("heap_story", 40, 0, 0, NULL);
	u8 *object = kmem_cache_alloc(cache, GFP_KERNEL);

	hide(object, 43, 1);
	kmem_cache_free(cache, object);
	kmem_cache_destroy(cache);
	return 0;
}

static int cache_use_after_free(void)
{
	struct kmem_cache *cache = kmem_cache_create("heap_story", 40, 0, 0, construct);
	u8 *object = kmem_cache_alloc(cache, GFP_KERNEL);

	kmem_cache_free(cache, object);
	hide(object, 5, 1);
	kmem_cache_destroy(cache);
	return 0;
}

static int typesafe(void)
{
	struct kmem_cache *cache = kmem_cache_create("heap_story", 40, 0, SLAB_TYPESAFE_BY_RCU, construct);
	u8 *object = kmem_cache_alloc(cache, GFP_KERNEL);

	rcu_read_lock();
	kmem_cache_free(cache, object);
	OPTIMIZER_HIDE_VAR(object);
	pr_info("heap_story: still %02x\n", READ_ONCE(object[39]));
	rcu_read_unlock();
	kmem_cache_destroy(cache);
	return 0;
}

static int stale_after_krealloc(void)
{
	u8 *block = kmalloc(24, GFP_KERNEL), *bigger = krealloc(block, 25, GFP_KERNEL);

	hide(block, 3, 1);
	kfree(bigger);
	return 0;
}

static int rcu(void)
{
	struct leaf *leaf = kmalloc(sizeof(*leaf), GFP_KERNEL);

	kfree_rcu(leaf, rcu);
	return 0;
}

static int rcu_twice(void)
{
	struct leaf *leaf = kmalloc(sizeof(*leaf), GFP_KERNEL);

	kfree_rcu(leaf, rcu);
	ssleep(8);
	OPTIMIZER_HIDE_VAR(leaf);
	kfree(leaf);
	return 0;
}

static void *timed;

static void give_up(struct timer_list *timer)
{
	void *more = kmalloc(40, GFP_ATOMIC);

	kfree(timed);
	kfree(more);
	hide(timed, 7, 1);
}

static DEFINE_TIMER(story_timer, give_up);

static int timer(void)
{
	timed = kmalloc(20, GFP_KERNEL);
	mod_timer(&story_timer, jiffies + 2);
	msleep(100);
	return 0;
}

static int many(void)
{
	void *blocks[64];
	int i, round;

	for (round = 0; round < 40; round++) {
		for (i = 0; i < ARRAY_SIZE(blocks); i++)
			blocks[i] = kmalloc(16 + i * 8, GFP_KERNEL);
		for (i = 0; i < ARRAY_SIZE(blocks); i++)
			kfree(blocks[i]);
	}
	return 0;
}

static int vmalloc_leak(void)
{
	return vzalloc(5000) ? 0 : -ENOMEM;
}

static int vmalloc_overrun(void)
{
	u8 *block = vmalloc(5000);

	hide(block, 5000, 1);
	vfree(block);
	return 0;
}

static int failing(void)
{
	return kmalloc(10, GFP_KERNEL) ? -ENODEV : -ENOMEM;
}

noinline void *heap_story_make(void);
noinline void *heap_story_make(void)
{
	return kmalloc(77, GFP_KERNEL);
}

static const struct {
	const char *name;
	int (*tell)(void);
} stories[] = {
	{ "clean", clean }, { "cache_overrun", cache_overrun }, { "cache_use_after_free", cache_use_after_free },
	{ "typesafe", typesafe }, { "stale_after_krealloc", stale_after_krealloc },
	{ "rcu", rcu }, { "rcu_twice", rcu_twice },
	{ "timer", timer }, { "many", many }, { "vmalloc_leak", vmalloc_leak }, { "vmalloc_overrun", vmalloc_overrun }, { "failing", failing },
};

static int __init heap_story_init(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(stories); i++)
		if (!strcmp(story, stories[i].name))
			return stories[i].tell();
	return -EINVAL;
}

static void __exit heap_story_exit(void)
{
}

module_init(heap_story_init);
module_exit(heap_story_exit);

MODULE_DESCRIPTION("Allocates and frees, rightly and wrongly");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
