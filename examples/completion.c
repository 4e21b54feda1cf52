// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * completion: wait until somebody else is done, but not for ever.
 *
 * A thread takes `takes_ms` to answer, init waits at most `patience_ms`. A completion remembers that it was completed, so it
 * does not matter who is first. If patience runs out the load still succeeds; the thread is waited for at unload, because it
 * runs code of this module.
 *
 *     kobox run examples/prebuilt/completion.ko takes_ms=2000
 */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/init.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/module.h>

static unsigned int takes_ms = 100;
module_param(takes_ms, uint, 0444);
MODULE_PARM_DESC(takes_ms, "How long the answer takes, in milliseconds");

static unsigned int patience_ms = 1000;
module_param(patience_ms, uint, 0444);
MODULE_PARM_DESC(patience_ms, "How long init waits, in milliseconds");

static DECLARE_COMPLETION(answered);
static struct task_struct *oracle;
static int answer;

static int oracle_run(void *data)
{
	msleep(takes_ms);
	answer = 42;
	complete_all(&answered);
	/* kthread_stop() needs a thread that is still there. */
	while (!kthread_should_stop())
		schedule_timeout_interruptible(HZ);
	return 0;
}

static int __init ask_init(void)
{
	oracle = kthread_run(oracle_run, NULL, "kobox_oracle");
	if (IS_ERR(oracle))
		return PTR_ERR(oracle);
	if (wait_for_completion_timeout(&answered, msecs_to_jiffies(patience_ms)))
		pr_info("completion: the answer is %d\n", answer);
	else
		pr_info("completion: no answer after %u ms\n", patience_ms);
	return 0;
}

static void __exit ask_exit(void)
{
	wait_for_completion(&answered);
	kthread_stop(oracle);
	pr_info("completion: the answer was %d\n", answer);
}

module_init(ask_init);
module_exit(ask_exit);

MODULE_DESCRIPTION("Waits for a thread, with a time-out");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
