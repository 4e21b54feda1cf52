// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * livepatch: replaces a function of another module while it runs.
 *
 * exporter_add() gets a new body, which every caller reaches from then on; disabling the patch in
 * /sys/kernel/livepatch/livepatch/enabled brings the old one back. The patch waits until no task is inside the old function.
 * Load exporter first or later: the patch is applied when the module is there.
 *
 *     kernel.insmod("exporter.ko"); kernel.insmod("livepatch.ko"); kernel.call("exporter_add", 2, 3)
 */
#include <linux/init.h>
#include <linux/livepatch.h>
#include <linux/module.h>

static int add_and_boast(int a, int b)
{
	pr_info("livepatch: %d + %d is %d, as everybody knows\n", a, b, a + b);
	return a + b;
}

static struct klp_func functions[] = {
	{ .old_name = "exporter_add", .new_func = add_and_boast },
	{}
};

static struct klp_object objects[] = {
	{ .name = "exporter", .funcs = functions },
	{}
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objects,
};

static int __init boast_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit boast_exit(void)
{
	pr_info("livepatch: modest again\n");
}

module_init(boast_init);
module_exit(boast_exit);

MODULE_DESCRIPTION("Patches a function of exporter.ko");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
MODULE_INFO(livepatch, "Y");
