// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * walk_oops: walk all tasks, then follow a pointer to nowhere.
 *
 * The first half is harmless: under the RCU read lock, for_each_process() goes from task to task, starting at init_task. The
 * second half is the kernel's most common crash. In a program it would be a segmentation fault; in the kernel it is an oops:
 * the kernel prints registers and a backtrace, kills the task that was running, and stays up if it can. The module stays
 * loaded for good, because nobody is left to finish its init. With crash=0 the second half is left out.
 *
 *     kobox run examples/prebuilt/walk_oops.ko
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>

static bool crash = true;
module_param(crash, bool, 0444);
MODULE_PARM_DESC(crash, "Whether to dereference NULL after the walk");

struct chapter {
	char title[40];
	struct chapter *next;
};

static struct chapter *last_chapter;

static noinline struct chapter *read_on(struct chapter *chapter)
{
	return READ_ONCE(chapter->next);
}

static int __init walk_init(void)
{
	struct task_struct *task;
	unsigned int tasks = 0;

	rcu_read_lock();
	for_each_process(task) {
		pr_info("walk_oops: %5d %s\n", task->pid, task->comm);
		tasks++;
	}
	rcu_read_unlock();
	pr_info("walk_oops: %u processes\n", tasks);

	if (crash)
		last_chapter = read_on(last_chapter);
	return 0;
}

static void __exit walk_exit(void)
{
	pr_info("walk_oops: bye\n");
}

module_init(walk_init);
module_exit(walk_exit);

MODULE_DESCRIPTION("Walks all tasks, then dereferences NULL");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
