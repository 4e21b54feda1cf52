// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * fail_init: finds no hardware after it has allocated already.
 *
 * A negative return value undoes the load; what init has acquired it has to give back itself. With tidy=0 it does not.
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/slab.h>

static bool tidy = true;
module_param(tidy, bool, 0444);
MODULE_PARM_DESC(tidy, "Free before failing");

static int __init fail_init_init(void)
{
	void *block = kmalloc(256, GFP_KERNEL);

	if (!block)
		return -ENOMEM;
	pr_info("fail_init: no such device\n");
	if (tidy)
		kfree(block);
	return -ENODEV;
}

static void __exit fail_init_exit(void)
{
}

module_init(fail_init_init);
module_exit(fail_init_exit);

MODULE_DESCRIPTION("Fails to initialise");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
