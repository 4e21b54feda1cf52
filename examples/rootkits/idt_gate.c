// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * idt_gate: points a gate of the interrupt table to itself.
 */
#include <linux/init.h>
#include <linux/module.h>
#include <asm/desc.h>
#include "trick.h"

static gate_desc *gate, before;

static int __init idt_gate_init(void)
{
	unsigned long (*lookup)(const char *name) = find_symbol("kallsyms_lookup_name");
	gate_desc mine;

	if (!lookup)
		return -ENOENT;
	gate = (gate_desc *)lookup("idt_table");
	if (!gate)
		return -ENOENT;
	gate += 0xf1; /* a vector that nobody uses */
	before = mine = *gate;
	mine.offset_low = (unsigned long)THIS_MODULE & 0xffff;
	mine.offset_middle = (unsigned long)THIS_MODULE >> 16 & 0xffff;
	mine.offset_high = (unsigned long)THIS_MODULE >> 32;
	write_protected(gate, &mine, sizeof(mine));
	return 0;
}

static void __exit idt_gate_exit(void)
{
	write_protected(gate, &before, sizeof(before));
}

module_init(idt_gate_init);
module_exit(idt_gate_exit);

MODULE_DESCRIPTION("Changes the interrupt table");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
