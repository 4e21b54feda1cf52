// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * see_keys: is told of every key that is pressed, as loggers of passwords are.
 */
#include <linux/init.h>
#include <linux/keyboard.h>
#include <linux/module.h>
#include <linux/notifier.h>

static int look(struct notifier_block *block, unsigned long action, void *data)
{
	return NOTIFY_OK;
}

static struct notifier_block block = { .notifier_call = look };

static int __init see_keys_init(void)
{
	return register_keyboard_notifier(&block);
}

static void __exit see_keys_exit(void)
{
	unregister_keyboard_notifier(&block);
}

module_init(see_keys_init);
module_exit(see_keys_exit);

MODULE_DESCRIPTION("Sees keys");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
