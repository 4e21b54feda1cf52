// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * notifier: being told what happens elsewhere in the kernel.
 *
 * A notifier chain is a list of functions that a subsystem calls at certain events. This module listens to three: modules that
 * come and go, network devices, and the reboot. Registering with the network devices replays those that are there already.
 *
 *     kernel.insmod("notifier.ko"); kernel.insmod("hello.ko"); kernel.rmmod("hello")
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/notifier.h>
#include <linux/reboot.h>

static const char *state_name(unsigned long state)
{
	switch (state) {
	case MODULE_STATE_COMING:
		return "coming";
	case MODULE_STATE_LIVE:
		return "live";
	case MODULE_STATE_GOING:
		return "going";
	default:
		return "unformed";
	}
}

static int on_module(struct notifier_block *block, unsigned long state, void *data)
{
	struct module *module = data;

	pr_info("notifier: module %s is %s\n", module->name, state_name(state));
	return NOTIFY_OK;
}

static int on_netdevice(struct notifier_block *block, unsigned long event, void *data)
{
	if (event == NETDEV_REGISTER || event == NETDEV_UNREGISTER)
		pr_info("notifier: network device %s is %s\n", netdev_notifier_info_to_dev(data)->name,
			event == NETDEV_REGISTER ? "here" : "gone");
	return NOTIFY_DONE;
}

static int on_reboot(struct notifier_block *block, unsigned long event, void *data)
{
	pr_info("notifier: the machine goes down\n");
	return NOTIFY_DONE;
}

static struct notifier_block modules = { .notifier_call = on_module };
static struct notifier_block netdevices = { .notifier_call = on_netdevice };
static struct notifier_block reboots = { .notifier_call = on_reboot };

static int __init listen_init(void)
{
	int error = register_module_notifier(&modules);

	if (error)
		return error;
	error = register_netdevice_notifier(&netdevices);
	if (error)
		goto no_netdevices;
	error = register_reboot_notifier(&reboots);
	if (error)
		goto no_reboots;
	pr_info("notifier: listening\n");
	return 0;

no_reboots:
	unregister_netdevice_notifier(&netdevices);
no_netdevices:
	unregister_module_notifier(&modules);
	return error;
}

static void __exit listen_exit(void)
{
	unregister_reboot_notifier(&reboots);
	unregister_netdevice_notifier(&netdevices);
	unregister_module_notifier(&modules);
	pr_info("notifier: not listening any more\n");
}

module_init(listen_init);
module_exit(listen_exit);

MODULE_DESCRIPTION("Listens to three notifier chains");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
