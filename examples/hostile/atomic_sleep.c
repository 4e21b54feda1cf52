// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * atomic_sleep: goes to sleep with a spin lock held.
 *
 * Whoever wants the lock spins until the sleeper wakes up, which may be never. The kernel notices when it schedules ("BUG:
 * scheduling while atomic"). With only_allocate=1 the sleep is merely possible: kmalloc(GFP_KERNEL) may wait for memory.
 */
#include <linux/delay.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

static bool only_allocate;
module_param(only_allocate, bool, 0444);
MODULE_PARM_DESC(only_allocate, "Allocate with GFP_KERNEL instead of sleeping");

static DEFINE_SPINLOCK(lock);

static int __init atomic_sleep_init(void)
{
	void *block = NULL;

	spin_lock(&lock);
	if (only_allocate)
		block = kmalloc(64, GFP_KERNEL);
	else
		msleep(10);
	spin_unlock(&lock);
	kfree(block);
	pr_info("atomic_sleep: nobody noticed\n");
	return 0;
}

static void __exit atomic_sleep_exit(void)
{
}

module_init(atomic_sleep_init);
module_exit(atomic_sleep_exit);

MODULE_DESCRIPTION("Sleeps while it must not");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
