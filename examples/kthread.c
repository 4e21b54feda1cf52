// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * kthread: a kernel thread that sleeps until there is something to do.
 *
 * The thread waits on a wait queue; whoever has work for it changes the condition and wakes the queue. wait_event looks at the
 * condition again after every wake-up, so no wake-up is lost and none is trusted blindly. kthread_stop() wakes the thread, too,
 * and waits for it to return.
 *
 *     kobox run examples/prebuilt/kthread.ko letters=4
 */
#include <linux/atomic.h>
#include <linux/init.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/wait.h>

static unsigned int letters = 3;
module_param(letters, uint, 0444);
MODULE_PARM_DESC(letters, "How many letters are posted at load");

static DECLARE_WAIT_QUEUE_HEAD(letterbox);
static atomic_t posted = ATOMIC_INIT(0);
static struct task_struct *postman;
static unsigned int delivered;

static int postman_run(void *data)
{
	while (!kthread_should_stop()) {
		wait_event_interruptible(letterbox, atomic_read(&posted) || kthread_should_stop());
		while (atomic_add_unless(&posted, -1, 0)) {
			delivered++;
			pr_info("kthread: delivered letter %u\n", delivered);
		}
	}
	return delivered;
}

static int __init postman_init(void)
{
	postman = kthread_run(postman_run, NULL, "kobox_postman");
	if (IS_ERR(postman))
		return PTR_ERR(postman);
	pr_info("kthread: posting %u letters\n", letters);
	atomic_add(letters, &posted);
	wake_up_interruptible(&letterbox);
	return 0;
}

static void __exit postman_exit(void)
{
	pr_info("kthread: the postman delivered %d letters\n", kthread_stop(postman));
}

module_init(postman_init);
module_exit(postman_exit);

MODULE_DESCRIPTION("A kernel thread that waits on a wait queue");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
