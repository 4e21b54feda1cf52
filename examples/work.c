// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * work: a function that runs later, in a kernel thread, and may sleep.
 *
 * schedule_work() puts it on the shared workqueue; the kernel runs it when it gets to it. Queueing work that is already queued
 * does nothing and says so. container_of() leads from the work_struct to the job around it. cancel_work_sync() at unload waits
 * for a run in progress.
 *
 *     kobox run examples/prebuilt/work.ko
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/workqueue.h>

struct job {
	const char *name;
	unsigned int runs;
	struct work_struct work;
};

static void job_run(struct work_struct *work)
{
	struct job *job = container_of(work, struct job, work);

	job->runs++;
	pr_info("work: %s runs for the %u. time\n", job->name, job->runs);
}

static struct job wash = {
	.name = "wash",
	.work = __WORK_INITIALIZER(wash.work, job_run),
};

static struct job dry = {
	.name = "dry",
	.work = __WORK_INITIALIZER(dry.work, job_run),
};

static int __init work_init(void)
{
	bool queued = schedule_work(&wash.work);
	bool again = schedule_work(&wash.work);

	pr_info("work: queued: %d, queued again: %d\n", queued, again);
	schedule_work(&dry.work);
	flush_work(&wash.work);
	pr_info("work: after the flush, wash has run %u times\n", wash.runs);
	return 0;
}

static void __exit work_exit(void)
{
	cancel_work_sync(&wash.work);
	cancel_work_sync(&dry.work);
	pr_info("work: wash ran %u times, dry %u times\n", wash.runs, dry.runs);
}

module_init(work_init);
module_exit(work_exit);

MODULE_DESCRIPTION("Queues two pieces of work and waits for one");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
