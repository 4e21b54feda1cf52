// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * dyndbg: messages that are off until somebody wants them.
 *
 * Every pr_debug() has a record with file, line and function in the module. Silent by default, they are switched on one by one,
 * at load or later, and cost next to nothing while they are off:
 *
 *     kobox run examples/prebuilt/dyndbg.ko dyndbg=+p
 *     kobox run examples/prebuilt/dyndbg.ko 'dyndbg=func count_down +pfl'
 */
#include <linux/init.h>
#include <linux/module.h>

static unsigned int from = 3;
module_param(from, uint, 0444);
MODULE_PARM_DESC(from, "Where the count begins");

static noinline void count_down(unsigned int number)
{
	while (number) {
		pr_debug("dyndbg: %u\n", number);
		number--;
	}
}

static int __init launch_init(void)
{
	pr_debug("dyndbg: counting down from %u\n", from);
	count_down(from);
	pr_info("dyndbg: lift-off\n");
	return 0;
}

static void __exit launch_exit(void)
{
	pr_debug("dyndbg: splashdown\n");
}

module_init(launch_init);
module_exit(launch_exit);

MODULE_DESCRIPTION("Messages for dynamic debug to switch on");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
