// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * flip_key: changes running code, the allowed way.
 *
 * A static key makes a branch that costs nothing while it is off: a no-op, which static_branch_enable() patches into a jump, at
 * every place that uses it. Whoever caches decoded code has to notice. With kernel_key=1 a key of the kernel is flipped, too.
 */
#include <linux/filter.h>
#include <linux/init.h>
#include <linux/jump_label.h>
#include <linux/module.h>

static bool kernel_key;
module_param(kernel_key, bool, 0444);
MODULE_PARM_DESC(kernel_key, "Flip bpf_stats_enabled_key as well");

static DEFINE_STATIC_KEY_FALSE(tea_time);
static DEFINE_STATIC_KEY_TRUE(coffee_time);

static noinline const char *drink(void)
{
	if (static_branch_unlikely(&tea_time))
		return static_branch_likely(&coffee_time) ? "both" : "tea";
	return static_branch_likely(&coffee_time) ? "coffee" : "water";
}

static int __init flip_key_init(void)
{
	pr_info("flip_key: %s\n", drink());
	static_branch_enable(&tea_time);
	pr_info("flip_key: %s\n", drink());
	static_branch_disable(&coffee_time);
	pr_info("flip_key: %s\n", drink());
	static_branch_disable(&tea_time);
	pr_info("flip_key: %s\n", drink());
	if (kernel_key) {
		static_branch_enable(&bpf_stats_enabled_key);
		pr_info("flip_key: the kernel's key is %d\n", static_key_enabled(&bpf_stats_enabled_key));
	}
	return 0;
}

static void __exit flip_key_exit(void)
{
	if (kernel_key)
		static_branch_disable(&bpf_stats_enabled_key);
	pr_info("flip_key: %s at last\n", drink());
}

module_init(flip_key_init);
module_exit(flip_key_exit);

MODULE_DESCRIPTION("Patches code through static keys");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
