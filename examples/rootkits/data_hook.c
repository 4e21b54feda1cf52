// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * data_hook: puts a function of its own into a structure of the kernel that nobody registered it for.
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/fs.h>
#include "trick.h"

static int (*before)(struct seq_file *file, void *data);

static void **place;

static int show_nothing(struct seq_file *file, void *data)
{
	return 0;
}

static int __init data_hook_init(void)
{
	unsigned long (*lookup)(const char *name) = find_symbol("kallsyms_lookup_name");
	void *mine = show_nothing;

	if (!lookup)
		return -ENOENT;
	place = (void **)lookup("cpuinfo_op");
	if (!place)
		return -ENOENT;
	place += 3; /* struct seq_operations: start, stop, next, show */
	before = *place;
	write_protected(place, &mine, sizeof(mine));
	return 0;
}

static void __exit data_hook_exit(void)
{
	write_protected(place, &before, sizeof(before));
}

module_init(data_hook_init);
module_exit(data_hook_exit);

MODULE_DESCRIPTION("Hooks a table of functions");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
