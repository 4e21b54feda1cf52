// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * user: a module that needs another one.
 *
 * modpost writes `depends: exporter` into this file, which is all that modprobe goes by. While `user` is loaded, exporter has
 * a reference count of one and can't be unloaded: /sys/module/exporter/holders/user says who holds it.
 *
 *     kobox run examples/prebuilt/user.ko
 */
#include <linux/init.h>
#include <linux/module.h>

#include "exporter.h"

static int __init user_init(void)
{
	pr_info("user: 2 + 3 = %d, 6 * 7 = %d\n", exporter_add(2, 3), exporter_multiply(6, 7));
	pr_info("user: %s, after %d calls\n", exporter_motto(), exporter_calls);
	return 0;
}

static void __exit user_exit(void)
{
	pr_info("user: done\n");
}

module_init(user_init);
module_exit(user_exit);

MODULE_DESCRIPTION("Calls what exporter.ko exports");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
MODULE_IMPORT_NS(KOBOX_EXAMPLES);
