// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * double_free: gives the same memory back twice.
 *
 * The allocator then hands one block to two owners. Which pointer is freed: the same one (default), one that points into the
 * middle of a block, one that was never allocated.
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>

static char *what = "twice";
module_param(what, charp, 0444);
MODULE_PARM_DESC(what, "twice, middle or static");

static u8 never_allocated[64];

static int __init double_free_init(void)
{
	u8 *block = kmalloc(64, GFP_KERNEL);

	if (!block)
		return -ENOMEM;
	OPTIMIZER_HIDE_VAR(block);
	if (!strcmp(what, "middle")) {
		kfree(block + 8);
	} else if (!strcmp(what, "static")) {
		kfree(block);
		block = never_allocated;
		OPTIMIZER_HIDE_VAR(block);
		kfree(block);
	} else {
		u8 *again = block;

		OPTIMIZER_HIDE_VAR(again);
		kfree(block);
		kfree(again);
	}
	pr_info("double_free: nobody noticed\n");
	return 0;
}

static void __exit double_free_exit(void)
{
}

module_init(double_free_init);
module_exit(double_free_exit);

MODULE_DESCRIPTION("Frees memory twice");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
