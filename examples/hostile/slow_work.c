// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * slow_work: work that is still running when the module is unloaded.
 *
 * cancel_work_sync() waits for it, so the unload takes as long as the work. With wait=0 the module does not wait, and the
 * worker returns into memory that is gone.
 */
#include <linux/delay.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/workqueue.h>

static unsigned int ms = 5000;
module_param(ms, uint, 0444);
MODULE_PARM_DESC(ms, "How long the work takes, in milliseconds");

static bool wait = true;
module_param(wait, bool, 0444);
MODULE_PARM_DESC(wait, "Wait for the work at unload");

static void plod(struct work_struct *work)
{
	pr_info("slow_work: begins\n");
	msleep(ms);
	pr_info("slow_work: ends\n");
}

static DECLARE_WORK(slow, plod);

static int __init slow_work_init(void)
{
	schedule_work(&slow);
	msleep(1);
	pr_info("slow_work: loaded\n");
	return 0;
}

static void __exit slow_work_exit(void)
{
	if (wait)
		cancel_work_sync(&slow);
	pr_info("slow_work: unloaded\n");
}

module_init(slow_work_init);
module_exit(slow_work_exit);

MODULE_DESCRIPTION("Work that takes long");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
