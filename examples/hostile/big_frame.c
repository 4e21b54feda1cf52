// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * big_frame: a function whose variables are bigger than the stack.
 *
 * One frame of 48 KiB does not grow into the guard page but jumps over it, and the first write lands in whatever lies below.
 * The compiler warns of frames above 2 KiB for this reason.
 */
#include <linux/init.h>
#include <linux/module.h>

static noinline int use_big_frame(void)
{
	volatile u8 big[48 * 1024];

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

MODULE_DESCRIPTION("Jumps over the stack's guard page");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
