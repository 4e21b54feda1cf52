// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * stay: cannot be unloaded: it holds a reference to itself.
 */
#include <linux/init.h>
#include <linux/module.h>

static int __init stay_init(void)
{
	__module_get(THIS_MODULE);
	return 0;
}

static void __exit stay_exit(void)
{

}

module_init(stay_init);
module_exit(stay_exit);

MODULE_DESCRIPTION("Keeps itself from being unloaded");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
