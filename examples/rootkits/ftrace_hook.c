// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * ftrace_hook: takes over a function by ftrace, as hooks that survive write protection do.
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/ftrace.h>

static void notrace taken_over(unsigned long ip, unsigned long parent, struct ftrace_ops *ops, struct ftrace_regs *regs)
{
}

static struct ftrace_ops ops = {
	.func = taken_over,
	.flags = FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_IPMODIFY,
};

static int __init ftrace_hook_init(void)
{
	int error = ftrace_set_filter(&ops, "version_proc_show", strlen("version_proc_show"), 1);

	return error ? error : register_ftrace_function(&ops);
}

static void __exit ftrace_hook_exit(void)
{
	unregister_ftrace_function(&ops);
}

module_init(ftrace_hook_init);
module_exit(ftrace_hook_exit);

MODULE_DESCRIPTION("Hooks a function by ftrace");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
