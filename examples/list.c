// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * list: the kernel's linked list. The links live inside the element, not the other way round.
 *
 * struct list_head is a pair of pointers; container_of() goes back from it to the structure it is a part of. That is how one
 * small set of inline functions serves every list in the kernel. Every element is allocated with kmalloc() and freed at
 * unload: compare with leak.c, which forgets to.
 *
 *     kobox run examples/prebuilt/list.ko count=3
 */
#include <linux/init.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/slab.h>

static unsigned int count = 5;
module_param(count, uint, 0444);
MODULE_PARM_DESC(count, "How many elements the list gets");

struct animal {
	unsigned int legs;
	struct list_head link;
};

static LIST_HEAD(herd);

static void herd_free(void)
{
	struct animal *animal, *next;

	/* The "safe" walk remembers the next element, because this one is gone after kfree(). */
	list_for_each_entry_safe(animal, next, &herd, link) {
		list_del(&animal->link);
		kfree(animal);
	}
}

static int __init list_init(void)
{
	struct animal *animal;
	unsigned int i, legs = 0;

	for (i = 0; i < count; i++) {
		animal = kmalloc(sizeof(*animal), GFP_KERNEL);
		if (!animal) {
			herd_free();
			return -ENOMEM;
		}
		animal->legs = 2 * (i + 1);
		list_add_tail(&animal->link, &herd);
	}

	list_for_each_entry(animal, &herd, link) {
		pr_info("list: an animal with %u legs\n", animal->legs);
		legs += animal->legs;
	}
	pr_info("list: %u animals, %u legs\n", count, legs);
	return 0;
}

static void __exit list_exit(void)
{
	herd_free();
	pr_info("list: empty again: %s\n", list_empty(&herd) ? "yes" : "no");
}

module_init(list_init);
module_exit(list_exit);

MODULE_DESCRIPTION("Builds, walks and frees a list_head list");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
