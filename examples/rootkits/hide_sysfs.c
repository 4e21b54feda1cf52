// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * hide_sysfs: removes its directory in /sys/module.
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/kobject.h>

static int __init hide_sysfs_init(void)
{
	kobject_del(&THIS_MODULE->mkobj.kobj);
	return 0;
}

static void __exit hide_sysfs_exit(void)
{

}

module_init(hide_sysfs_init);
module_exit(hide_sysfs_exit);

MODULE_DESCRIPTION("Hides from sysfs");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
