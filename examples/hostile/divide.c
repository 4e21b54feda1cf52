// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * divide: divides by a parameter that is zero unless you say otherwise.
 *
 * A divide error is an exception of its own, not a page fault: the oops begins with "divide error".
 */
#include <linux/init.h>
#include <linux/module.h>

static int divisor;
module_param(divisor, int, 0444);
MODULE_PARM_DESC(divisor, "What 1000 is divided by");

static int __init divide_init(void)
{
	pr_info("divide: 1000 / %d\n", divisor);
	pr_info("divide: is %d\n", 1000 / READ_ONCE(divisor));
	return 0;
}

static void __exit divide_exit(void)
{
}

module_init(divide_init);
module_exit(divide_exit);

MODULE_DESCRIPTION("Divides by zero");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
