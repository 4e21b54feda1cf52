// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * spin_time: waits for a clock without ever going to sleep.
 *
 * Drivers poll hardware like this. It ends if the clock goes on while nobody sleeps, which a kernel with virtual time has to
 * provide for; with ms=0 it never ends.
 */
#include <linux/init.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/string.h>
#include <asm/msr.h>

static char *clock = "ktime";
module_param(clock, charp, 0444);
MODULE_PARM_DESC(clock, "ktime, jiffies or tsc");

static unsigned int ms = 20;
module_param(ms, uint, 0444);
MODULE_PARM_DESC(ms, "How long to wait; 0: for ever");

static bool spin_ktime(void)
{
	ktime_t end = ktime_add_ms(ktime_get(), ms);

	while (!ms || ktime_before(ktime_get(), end))
		cpu_relax();
	return true;
}

static bool spin_jiffies(void)
{
	unsigned long end = jiffies + msecs_to_jiffies(ms);

	while (!ms || time_before(jiffies, end))
		cpu_relax();
	return true;
}

static bool spin_tsc(void)
{
	/* At least so many ticks on any processor of 1 GHz or more. */
	u64 end = rdtsc() + 1000000ULL * ms;

	while (!ms || rdtsc() < end)
		cpu_relax();
	return true;
}

static int __init spin_time_init(void)
{
	bool done = !strcmp(clock, "jiffies") ? spin_jiffies() : !strcmp(clock, "tsc") ? spin_tsc() : spin_ktime();

	pr_info("spin_time: %u ms of %s are over: %d\n", ms, clock, done);
	return 0;
}

static void __exit spin_time_exit(void)
{
}

module_init(spin_time_init);
module_exit(spin_time_exit);

MODULE_DESCRIPTION("Waits busily until a clock has advanced");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
