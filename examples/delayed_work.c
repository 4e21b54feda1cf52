// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * delayed_work: work that is done later, in a workqueue of its own.
 *
 * Timer and work in one: a timer puts the work on the queue. It starts itself again until it has run `beats` times. Destroying
 * the queue waits for work that runs, not for work whose timer has yet to fire: cancel_delayed_work_sync() comes first.
 *
 *     kobox run examples/prebuilt/delayed_work.ko beats=2 period_ms=500
 */
#include <linux/init.h>
#include <linux/jiffies.h>
#include <linux/module.h>
#include <linux/workqueue.h>

static unsigned int beats = 3;
module_param(beats, uint, 0444);
MODULE_PARM_DESC(beats, "How often the heart beats");

static unsigned int period_ms = 1000;
module_param(period_ms, uint, 0444);
MODULE_PARM_DESC(period_ms, "Milliseconds between two beats");

static struct workqueue_struct *queue;
static unsigned int beaten;

static void beat(struct work_struct *work)
{
	beaten++;
	pr_info("delayed_work: beat %u\n", beaten);
	if (beaten < beats)
		queue_delayed_work(queue, to_delayed_work(work), msecs_to_jiffies(period_ms));
}

static DECLARE_DELAYED_WORK(heart, beat);

static int __init heart_init(void)
{
	queue = alloc_ordered_workqueue("kobox_heart", 0);
	if (!queue)
		return -ENOMEM;
	queue_delayed_work(queue, &heart, msecs_to_jiffies(period_ms));
	pr_info("delayed_work: waiting for the first beat\n");
	return 0;
}

static void __exit heart_exit(void)
{
	bool pending = cancel_delayed_work_sync(&heart);

	destroy_workqueue(queue);
	pr_info("delayed_work: %u beats, %s\n", beaten, pending ? "stopped early" : "none was due");
}

module_init(heart_init);
module_exit(heart_exit);

MODULE_DESCRIPTION("A heart that beats in a workqueue of its own");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
