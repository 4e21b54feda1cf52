// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * exporter: what it takes to be used by another module.
 *
 * Only exported symbols resolve, a plain global function does not. _GPL restricts who may bind, a namespace makes the user say
 * MODULE_IMPORT_NS, and every export carries a checksum of its C types (CONFIG_MODVERSIONS). Nothing is done at load: the
 * module is there to be called. See user.c.
 *
 *     kobox run examples/prebuilt/exporter.ko
 */
#include <linux/init.h>
#include <linux/module.h>

#include "exporter.h"

int exporter_calls;
EXPORT_SYMBOL(exporter_calls);

int exporter_add(int a, int b)
{
	exporter_calls++;
	return a + b;
}
EXPORT_SYMBOL(exporter_add);

int exporter_multiply(int a, int b)
{
	exporter_calls++;
	return a * b;
}
EXPORT_SYMBOL_GPL(exporter_multiply);

const char *exporter_motto(void)
{
	exporter_calls++;
	return "one symbol at a time";
}
EXPORT_SYMBOL_NS(exporter_motto, KOBOX_EXAMPLES);

static int __init exporter_init(void)
{
	pr_info("exporter: ready\n");
	return 0;
}

static void __exit exporter_exit(void)
{
	pr_info("exporter: was called %d times\n", exporter_calls);
}

module_init(exporter_init);
module_exit(exporter_exit);

MODULE_DESCRIPTION("Exports a variable and three functions, each in another way");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
