// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * syscall_table: replaces an entry of the table of system calls.
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/unistd.h>
#include "trick.h"

typedef asmlinkage long (*call_t)(const struct pt_regs *regs);

static call_t *table, original;

static asmlinkage long replacement(const struct pt_regs *regs)
{
	return original(regs);
}

static int __init syscall_table_init(void)
{
	call_t mine = replacement;
	unsigned long (*lookup)(const char *name) = find_symbol("kallsyms_lookup_name");

	if (!lookup)
		return -ENOENT;
	table = (call_t *)lookup("sys_call_table");
	if (!table)
		return -ENOENT;
	original = table[__NR_getpgid];
	write_protected(&table[__NR_getpgid], &mine, sizeof(mine));
	return 0;
}

static void __exit syscall_table_exit(void)
{
	write_protected(&table[__NR_getpgid], &original, sizeof(original));
}

module_init(syscall_table_init);
module_exit(syscall_table_exit);

MODULE_DESCRIPTION("Replaces a system call");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
