// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * halt: executes the hlt instruction.
 *
 * With interrupts on, the processor sleeps until the next one and goes on: harmless. With irqs_off=1 nothing wakes it any more.
 */
#include <linux/init.h>
#include <linux/module.h>

static bool irqs_off;
module_param(irqs_off, bool, 0444);
MODULE_PARM_DESC(irqs_off, "Disable interrupts first");

static int __init halt_init(void)
{
	pr_info("halt: good night\n");
	if (irqs_off)
		asm volatile("cli" : : : "memory");
	asm volatile("hlt");
	pr_info("halt: good morning\n");
	return 0;
}

static void __exit halt_exit(void)
{
}

module_init(halt_init);
module_exit(halt_exit);

MODULE_DESCRIPTION("Executes hlt");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
