// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * big_frame: a function whose variables are bigger than the stack.
 *
 * One frame of 18 KiB puts the stack pointer itself into the guard page below a stack of 16 KiB: the first write to the frame
 * faults, and the fault has no stack to be reported on. (A frame that is larger still jumps over the guard page, into
 * whatever lies below.) The compiler warns of frames above 2 KiB for this reason.
 */
#include <linux/init.h>
#include <linux/module.h>

static noinline int use_big_frame(void)
{
	volatile u8 big[18 * 1024];

	big[0] = 1;
	big[sizeof(big) - 1] = 2;
	return big[0] + big[sizeof(big) - 1];
}

static int __init big_frame_init(void)
{
	pr_info("big_frame: wide steps\n");
	pr_info("big_frame: %d\n", use_big_frame());
	return 0;
}

static void __exit big_frame_exit(void)
{
}

module_init(big_frame_init);
module_exit(big_frame_exit);

MODULE_DESCRIPTION("Puts the stack pointer into the guard page");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
