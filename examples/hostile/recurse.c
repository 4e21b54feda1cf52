// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * recurse: a function that calls itself without end.
 *
 * A kernel stack is 16 KiB and has an unmapped page below it. The overflow is a double fault, because the page fault has no
 * stack to run on; the kernel says which guard page was hit and kills the task.
 */
#include <linux/init.h>
#include <linux/module.h>

static noinline unsigned long deeper(unsigned long depth)
{
	volatile unsigned long here[8] = { depth };

	return deeper(depth + 1) + here[depth % 8];
}

static int __init recurse_init(void)
{
	pr_info("recurse: down the hole\n");
	pr_info("recurse: came back with %lu\n", deeper(0));
	return 0;
}

static void __exit recurse_exit(void)
{
}

module_init(recurse_init);
module_exit(recurse_exit);

MODULE_DESCRIPTION("Recurses until the stack is full");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
