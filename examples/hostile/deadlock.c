// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * deadlock: waits for itself.
 *
 * A mutex is not recursive: the second mutex_lock() sleeps for ever, and init never returns. With spin=1 it is a spin lock,
 * which on one processor loops for ever instead.
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>

static bool spin;
module_param(spin, bool, 0444);
MODULE_PARM_DESC(spin, "Use a spin lock");

static DEFINE_MUTEX(door);
static DEFINE_SPINLOCK(gate);

static int __init deadlock_init(void)
{
	pr_info("deadlock: once\n");
	if (spin) {
		spin_lock(&gate);
		spin_lock(&gate);
	} else {
		mutex_lock(&door);
		mutex_lock(&door);
	}
	pr_info("deadlock: twice\n");
	return 0;
}

static void __exit deadlock_exit(void)
{
}

module_init(deadlock_init);
module_exit(deadlock_exit);

MODULE_DESCRIPTION("Takes a lock twice");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
