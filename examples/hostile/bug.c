// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * bug: a programmer's assertion that fails.
 *
 * BUG() is an invalid instruction, ud2, and an entry in the module's bug table with file and line. The task dies. Where it only
 * looks bad, WARN() lets the kernel go on: see warn.c. With locked=1 a mutex is held for ever afterwards.
 */
#include <linux/bug.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/mutex.h>

static bool locked;
module_param(locked, bool, 0444);
MODULE_PARM_DESC(locked, "Hold a mutex when it happens");

static DEFINE_MUTEX(lock);

static int __init bug_init(void)
{
	if (locked)
		mutex_lock(&lock);
	pr_info("bug: one and one is three\n");
	BUG_ON(locked || 1 + 1 != 3);
	return 0;
}

static void __exit bug_exit(void)
{
}

module_init(bug_init);
module_exit(bug_exit);

MODULE_DESCRIPTION("Hits a BUG()");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
