// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * use_after_free: the pointer outlives the memory.
 *
 * Between kfree() and the read anybody may have been given the same memory. With writing=1 it is written to.
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/slab.h>

static bool writing;
module_param(writing, bool, 0444);
MODULE_PARM_DESC(writing, "Write instead of reading");

struct guest {
	unsigned long room;
	unsigned long nights;
};

static noinline void check_out(struct guest *guest)
{
	kfree(guest);
}

static int __init use_after_free_init(void)
{
	struct guest *guest = kmalloc(sizeof(*guest), GFP_KERNEL);

	if (!guest)
		return -ENOMEM;
	guest->room = 101;
	guest->nights = 3;
	check_out(guest);
	OPTIMIZER_HIDE_VAR(guest);
	if (writing)
		WRITE_ONCE(guest->nights, 4);
	else
		pr_info("use_after_free: %lu nights\n", READ_ONCE(guest->nights));
	pr_info("use_after_free: nobody noticed\n");
	return 0;
}

static void __exit use_after_free_exit(void)
{
}

module_init(use_after_free_init);
module_exit(use_after_free_exit);

MODULE_DESCRIPTION("Uses memory after freeing it");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
