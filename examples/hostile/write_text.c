// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * write_text: a module that writes over its own code.
 *
 * Text is read-only once a module is loaded (CONFIG_STRICT_MODULE_RWX): the write is a page fault, error code 3, an oops.
 * Without that protection, victim() would return 2 afterwards. With data=1 it writes to its read-only data instead.
 */
#include <linux/init.h>
#include <linux/module.h>

static bool data;
module_param(data, bool, 0444);
MODULE_PARM_DESC(data, "Write to read-only data instead of text");

static const u8 constants[16] = { 1, 2, 3 };

static noinline int victim(void)
{
	barrier();
	return 1;
}

static int __init write_text_init(void)
{
	u8 *place = data ? (u8 *)constants : (u8 *)victim;

	OPTIMIZER_HIDE_VAR(place);
	pr_info("write_text: victim returns %d\n", victim());
	WRITE_ONCE(*place, 0xc3);
	pr_info("write_text: still here, victim returns %d\n", victim());
	return 0;
}

static void __exit write_text_exit(void)
{
}

module_init(write_text_init);
module_exit(write_text_exit);

MODULE_DESCRIPTION("Writes to its own text");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
