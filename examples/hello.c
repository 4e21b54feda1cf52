// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * hello: the smallest module worth loading, with one parameter of each common kind.
 *
 * module_init() runs once when the module is loaded; a negative return undoes the load. module_exit() runs at unload, and a
 * module without one can never leave. The parameters appear as files in /sys/module/hello/parameters, with the mode given:
 * my_param may be changed while the module is loaded, the others only be read, and `secret` has no file at all.
 *
 *     kobox run examples/prebuilt/hello.ko my_param=7 whom=Ada numbers=1,2,3
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/moduleparam.h>

static int my_param = 42;
module_param(my_param, int, 0644);
MODULE_PARM_DESC(my_param, "A number that is printed at load and at unload");

static char *whom = "world";
module_param(whom, charp, 0444);
MODULE_PARM_DESC(whom, "Who is greeted");

static bool loud;
module_param(loud, bool, 0444);
MODULE_PARM_DESC(loud, "Greet with an exclamation mark");

static int numbers[4];
static unsigned int numbers_given;
module_param_array(numbers, int, &numbers_given, 0444);
MODULE_PARM_DESC(numbers, "Up to four numbers, whose sum is printed");

static unsigned int secret;
module_param(secret, uint, 0);
MODULE_PARM_DESC(secret, "Has no file in sysfs");

static int __init hello_init(void)
{
	unsigned int i;
	int sum = 0;

	for (i = 0; i < numbers_given; i++)
		sum += numbers[i];

	pr_info("hello: hello, %s%s\n", whom, loud ? "!" : "");
	pr_info("hello: my_param is %d, %u numbers add up to %d\n", my_param, numbers_given, sum);
	return 0;
}

static void __exit hello_exit(void)
{
	pr_info("hello: goodbye, my_param is %d\n", my_param);
}

module_init(hello_init);
module_exit(hello_exit);

MODULE_DESCRIPTION("Greets, and shows every common kind of module parameter");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
MODULE_VERSION("1.0");
