// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * spin: an endless loop in init.
 *
 * By default it does nothing at all, so no call and no trap ever ends it; a real kernel notices after some twenty seconds (soft
 * lockup). With irqs_off=1 not even the timer interrupt gets through. spin_time.c looks at the clock meanwhile.
 */
#include <linux/init.h>
#include <linux/module.h>

static bool irqs_off;
module_param(irqs_off, bool, 0444);
MODULE_PARM_DESC(irqs_off, "Disable interrupts first");

static noinline void spin(void)
{
	for (;;)
		barrier();
}

static int __init spin_init(void)
{
	pr_info("spin: round and round\n");
	if (irqs_off)
		asm volatile("cli" : : : "memory");
	spin();
	return 0;
}

static void __exit spin_exit(void)
{
}

module_init(spin_init);
module_exit(spin_exit);

MODULE_DESCRIPTION("Loops for ever");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
