// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * warn: something looks wrong, and the kernel goes on.
 *
 * WARN() prints file, line, registers and a backtrace, sets the taint flag W, and gives its condition back. WARN_ON_ONCE() does
 * so a single time, however often it is reached. The load succeeds.
 */
#include <linux/bug.h>
#include <linux/init.h>
#include <linux/module.h>

static int __init warn_init(void)
{
	int i, again = 0;

	if (WARN(true, "warn: the number is %d\n", 7))
		pr_info("warn: going on after WARN\n");
	WARN_ON(!again);
	for (i = 0; i < 3; i++)
		again += WARN_ON_ONCE(i >= 0);
	pr_info("warn: the condition was true %d times\n", again);
	return 0;
}

static void __exit warn_exit(void)
{
	pr_info("warn: unloaded\n");
}

module_init(warn_init);
module_exit(warn_exit);

MODULE_DESCRIPTION("Warns in three ways");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
