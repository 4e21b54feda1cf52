// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * jump: calls whatever address it is given.
 *
 * The default lies in the half of memory that belongs to programs: the kernel may not execute there. A non-canonical address is
 * a general protection fault, an unmapped one a page fault with the "instruction fetch" bit, and data=1 jumps into its own
 * data, which is not executable.
 *
 *     kobox run examples/prebuilt/hostile/jump.ko where=0xdead000000000000
 */
#include <linux/init.h>
#include <linux/module.h>

static unsigned long where = 0x10000;
module_param(where, ulong, 0444);
MODULE_PARM_DESC(where, "The address to call");

static bool data;
module_param(data, bool, 0444);
MODULE_PARM_DESC(data, "Call the module's own data instead");

static u8 code[16] = { 0xc3 };

static int __init jump_init(void)
{
	void (*function)(void) = (void *)(data ? (unsigned long)code : where);

	pr_info("jump: here we go\n");
	function();
	pr_info("jump: came back\n");
	return 0;
}

static void __exit jump_exit(void)
{
}

module_init(jump_init);
module_exit(jump_exit);

MODULE_DESCRIPTION("Calls an arbitrary address");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
