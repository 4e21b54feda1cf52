// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * kprobe: hooks into a function of the running kernel.
 *
 * A kprobe puts a breakpoint, or a jump where one fits, at almost any instruction; its handler sees the registers, and with them
 * the arguments. A kretprobe sees the result. Neither needs the function's source, nor its being exported.
 *
 *     kobox run examples/prebuilt/kprobe.ko symbol=msleep
 */
#include <linux/delay.h>
#include <linux/init.h>
#include <linux/kprobes.h>
#include <linux/module.h>

static char *symbol = "msleep";
module_param(symbol, charp, 0444);
MODULE_PARM_DESC(symbol, "The function to watch");

static unsigned int entered, left;

static int on_entry(struct kprobe *probe, struct pt_regs *regs)
{
	entered++;
	pr_info("kprobe: %s is called with %lu\n", probe->symbol_name, regs_get_kernel_argument(regs, 0));
	return 0;
}

static int on_return(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	left++;
	return 0;
}

static struct kprobe entry = {
	.pre_handler = on_entry,
};

static struct kretprobe exit = {
	.handler = on_return,
	.maxactive = 8,
};

static int __init watch_init(void)
{
	int error;

	entry.symbol_name = symbol;
	exit.kp.symbol_name = symbol;
	error = register_kprobe(&entry);
	if (error)
		return error;
	error = register_kretprobe(&exit);
	if (error) {
		unregister_kprobe(&entry);
		return error;
	}
	msleep(20);
	pr_info("kprobe: watching %s\n", symbol);
	return 0;
}

static void __exit watch_exit(void)
{
	unregister_kretprobe(&exit);
	unregister_kprobe(&entry);
	pr_info("kprobe: entered %u times, left %u times, missed %lu\n", entered, left, entry.nmissed);
}

module_init(watch_init);
module_exit(watch_exit);

MODULE_DESCRIPTION("Watches a kernel function with a kprobe and a kretprobe");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
