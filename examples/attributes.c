// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * attributes: values in sysfs, one a file.
 *
 * A kobject is a folder below /sys, an attribute a file in it with a function to show and one to store. Text comes in, text
 * goes out, and what is stored is checked. Here: /sys/kernel/kobox_thermostat with `target` to set, `heating` to read, and
 * `name`, whose mode allows no writing.
 *
 *     kernel.insmod("attributes.ko"); kernel.write("/sys/kernel/kobox_thermostat/target", b"23")
 */
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/sysfs.h>

static struct kobject *thermostat;
static int target = 20;
static const int temperature = 21;

static ssize_t target_show(struct kobject *object, struct kobj_attribute *attribute, char *page)
{
	return sysfs_emit(page, "%d\n", target);
}

static ssize_t target_store(struct kobject *object, struct kobj_attribute *attribute, const char *text, size_t size)
{
	int wish, error = kstrtoint(text, 0, &wish);

	if (error)
		return error;
	if (wish < 5 || wish > 30)
		return -ERANGE;
	target = wish;
	pr_info("attributes: target is now %d\n", target);
	return size;
}

static ssize_t heating_show(struct kobject *object, struct kobj_attribute *attribute, char *page)
{
	return sysfs_emit(page, "%s\n", temperature < target ? "yes" : "no");
}

static ssize_t name_show(struct kobject *object, struct kobj_attribute *attribute, char *page)
{
	return sysfs_emit(page, "%s\n", kobject_name(object));
}

static struct kobj_attribute target_attribute = __ATTR_RW(target);
static struct kobj_attribute heating_attribute = __ATTR_RO(heating);
static struct kobj_attribute name_attribute = __ATTR_RO(name);

static struct attribute *thermostat_attributes[] = {
	&target_attribute.attr,
	&heating_attribute.attr,
	&name_attribute.attr,
	NULL,
};

static const struct attribute_group thermostat_group = {
	.attrs = thermostat_attributes,
};

static int __init thermostat_init(void)
{
	int error;

	thermostat = kobject_create_and_add("kobox_thermostat", kernel_kobj);
	if (!thermostat)
		return -ENOMEM;
	error = sysfs_create_group(thermostat, &thermostat_group);
	if (error) {
		kobject_put(thermostat);
		return error;
	}
	pr_info("attributes: three files in /sys/kernel/kobox_thermostat\n");
	return 0;
}

static void __exit thermostat_exit(void)
{
	kobject_put(thermostat);
	pr_info("attributes: gone\n");
}

module_init(thermostat_init);
module_exit(thermostat_exit);

MODULE_DESCRIPTION("A kobject with attributes in sysfs");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
