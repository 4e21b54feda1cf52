// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * leak: memory that is never given back.
 *
 * A program's memory is freed when it ends; a module's is not. What is allocated here stays allocated after the unload, and
 * nobody has its address any more. The report of `kobox run` names each block, its size and the line that asked for it.
 *
 *     kobox run examples/prebuilt/leak.ko blocks=3
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/slab.h>

static unsigned int blocks = 2;
module_param(blocks, uint, 0444);
MODULE_PARM_DESC(blocks, "How many blocks are lost");

static void *kept;

static int __init leak_init(void)
{
	unsigned int i;
	void *lost;

	kept = kmalloc(64, GFP_KERNEL);
	if (!kept)
		return -ENOMEM;
	for (i = 0; i < blocks; i++) {
		lost = kzalloc(100 * (i + 1), GFP_KERNEL);
		pr_info("leak: lost block %u: %s\n", i, lost ? "yes" : "no");
	}
	return 0;
}

static void __exit leak_exit(void)
{
	kfree(kept);
	pr_info("leak: freed one block of %u\n", blocks + 1);
}

module_init(leak_init);
module_exit(leak_exit);

MODULE_DESCRIPTION("Forgets to free what it allocated");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
