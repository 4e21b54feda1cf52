// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * stale_timer: leaves while its timer is still running.
 *
 * The timer fires after the module is gone and calls an address where nothing is, or worse, where something else is by then.
 */
#include <linux/init.h>
#include <linux/jiffies.h>
#include <linux/module.h>
#include <linux/timer.h>

static unsigned int ms = 100;
module_param(ms, uint, 0444);
MODULE_PARM_DESC(ms, "When the timer fires, in milliseconds");

static void ring(struct timer_list *timer)
{
	pr_info("stale_timer: rings\n");
}

static DEFINE_TIMER(alarm, ring);

static int __init stale_timer_init(void)
{
	mod_timer(&alarm, jiffies + msecs_to_jiffies(ms));
	return 0;
}

static void __exit stale_timer_exit(void)
{
	pr_info("stale_timer: leaving\n");
}

module_init(stale_timer_init);
module_exit(stale_timer_exit);

MODULE_DESCRIPTION("Leaves a timer behind");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
