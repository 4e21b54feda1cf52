// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * runaway: a loop that forgot where its buffer ends.
 *
 * vmalloc() leaves an unmapped page behind every area, so the first byte past the buffer is a page fault at an address that
 * ends in 000. With writing=1 the fault is a write.
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/vmalloc.h>

static bool writing;
module_param(writing, bool, 0444);
MODULE_PARM_DESC(writing, "Write instead of reading");

static noinline unsigned long walk(u8 *byte)
{
	unsigned long sum = 0;

	for (;; byte++) {
		if (writing)
			WRITE_ONCE(*byte, 0x5a);
		else
			sum += READ_ONCE(*byte);
	}
	return sum;
}

static int __init runaway_init(void)
{
	u8 *buffer = vzalloc(PAGE_SIZE);

	if (!buffer)
		return -ENOMEM;
	pr_info("runaway: off we go\n");
	walk(buffer);
	return 0;
}

static void __exit runaway_exit(void)
{
}

module_init(runaway_init);
module_exit(runaway_exit);

MODULE_DESCRIPTION("Walks off the end of its memory");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
