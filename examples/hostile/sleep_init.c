// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * sleep_init: takes its time to load.
 *
 * init runs in the context of whoever loads the module and may sleep; until it returns the module is "coming", and a second
 * load of the same name waits.
 */
#include <linux/delay.h>
#include <linux/init.h>
#include <linux/jiffies.h>
#include <linux/module.h>

static unsigned int ms = 1000;
module_param(ms, uint, 0444);
MODULE_PARM_DESC(ms, "How long, in milliseconds");

static int result;
module_param(result, int, 0444);
MODULE_PARM_DESC(result, "What init returns afterwards");

static int __init sleep_init_init(void)
{
	unsigned long begin = jiffies;

	pr_info("sleep_init: going to sleep\n");
	msleep(ms);
	pr_info("sleep_init: slept long enough: %d\n", jiffies - begin >= msecs_to_jiffies(ms));
	return result;
}

static void __exit sleep_init_exit(void)
{
	pr_info("sleep_init: unloaded\n");
}

module_init(sleep_init_init);
module_exit(sleep_init_exit);

MODULE_DESCRIPTION("Sleeps while it is loaded");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
