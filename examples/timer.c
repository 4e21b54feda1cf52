// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * timer: a function that runs later, in interrupt context, and starts itself again.
 *
 * A timer callback must not sleep. mod_timer() from within it makes it periodic. The one rule at unload: no callback may be
 * running or pending when the module's text goes away, hence timer_delete_sync().
 *
 *     kobox run examples/prebuilt/timer.ko period_ms=250 ticks=4
 */
#include <linux/init.h>
#include <linux/jiffies.h>
#include <linux/module.h>
#include <linux/timer.h>

static unsigned int period_ms = 100;
module_param(period_ms, uint, 0444);
MODULE_PARM_DESC(period_ms, "Milliseconds between two ticks");

static unsigned int ticks = 3;
module_param(ticks, uint, 0444);
MODULE_PARM_DESC(ticks, "After so many ticks the timer is not started again");

static void timer_tick(struct timer_list *timer);

static DEFINE_TIMER(clockwork, timer_tick);
static unsigned long started;
static unsigned int ticked;

static void timer_tick(struct timer_list *timer)
{
	ticked++;
	pr_info("timer: tick %u after %u ms\n", ticked, jiffies_to_msecs(jiffies - started));
	if (ticked < ticks)
		mod_timer(timer, jiffies + msecs_to_jiffies(period_ms));
}

static int __init timer_init(void)
{
	started = jiffies;
	mod_timer(&clockwork, started + msecs_to_jiffies(period_ms));
	pr_info("timer: started\n");
	return 0;
}

static void __exit timer_exit(void)
{
	int pending = timer_delete_sync(&clockwork);

	pr_info("timer: stopped after %u ticks, %s\n", ticked, pending ? "one more was due" : "none was due");
}

module_init(timer_init);
module_exit(timer_exit);

MODULE_DESCRIPTION("A periodic timer that stops after a few ticks");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
