// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * tracing: a trace event of one's own.
 *
 * A tracepoint is a place in the code with a name and typed fields. While nobody listens it is a no-op; switched on in
 * /sys/kernel/tracing/events/kobox_tracing, every pass writes a record into the trace buffer. See tracing.h.
 *
 *     kernel.insmod("tracing.ko"); kernel.write("/sys/module/tracing/parameters/drop", b"125")
 */
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/module.h>

#define CREATE_TRACE_POINTS
#include "tracing.h"

/* Falls from so many centimetres, a record every 50 ms. */
static int drop_set(const char *text, const struct kernel_param *param)
{
	unsigned int height, fallen, ms;
	int error = kstrtouint(text, 0, &height);

	if (error)
		return error;
	if (height > 10000)
		return -ERANGE;
	for (ms = 0; (fallen = 981 * ms / 1000 * ms / 2000) < height; ms += 50)
		trace_kobox_fall(height - fallen, ms);
	trace_kobox_fall(0, ms);
	pr_info("tracing: fell %u cm, traced: %d\n", height, trace_kobox_fall_enabled());
	return 0;
}

static const struct kernel_param_ops drop_operations = {
	.set = drop_set,
};

module_param_cb(drop, &drop_operations, NULL, 0200);
MODULE_PARM_DESC(drop, "Write a height in centimetres to let something fall from there");

static int __init fall_init(void)
{
	pr_info("tracing: ready\n");
	return 0;
}

static void __exit fall_exit(void)
{
	pr_info("tracing: done\n");
}

module_init(fall_init);
module_exit(fall_exit);

MODULE_DESCRIPTION("Has a trace event, and a parameter that makes it happen");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
