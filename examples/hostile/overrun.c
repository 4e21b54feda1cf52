// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * overrun: one byte too many.
 *
 * The classic off by one. kmalloc() rounds sizes up, so a byte past 33 may hit nothing, and a byte past 32 somebody else's
 * object: without a checker neither is noticed when it happens. With reading=1 the byte is only read.
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/slab.h>

static unsigned int size = 32;
module_param(size, uint, 0444);
MODULE_PARM_DESC(size, "How many bytes are allocated");

static int by = 1;
module_param(by, int, 0444);
MODULE_PARM_DESC(by, "How far past the end to go; negative: before the beginning");

static bool reading;
module_param(reading, bool, 0444);
MODULE_PARM_DESC(reading, "Read instead of writing");

static int __init overrun_init(void)
{
	u8 *block = kzalloc(size, GFP_KERNEL);
	long index = by < 0 ? by : (long)size + by - 1;

	if (!block)
		return -ENOMEM;
	OPTIMIZER_HIDE_VAR(block);
	if (reading)
		pr_info("overrun: read %u at %ld of %u\n", READ_ONCE(block[index]), index, size);
	else
		WRITE_ONCE(block[index], 0x5a);
	pr_info("overrun: nobody noticed\n");
	kfree(block);
	return 0;
}

static void __exit overrun_exit(void)
{
}

module_init(overrun_init);
module_exit(overrun_exit);

MODULE_DESCRIPTION("Writes past the end of an allocation");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
