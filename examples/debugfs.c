// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * debugfs: files for whoever debugs a driver, with no promise of staying.
 *
 * One line publishes a variable; DEFINE_DEBUGFS_ATTRIBUTE makes a file of two functions. Nobody checks for errors here, on
 * purpose: a driver works the same without debugfs.
 *
 *     kernel.insmod("debugfs.ko"); kernel.read("/sys/kernel/debug/kobox_counter/square")
 */
#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/module.h>

static struct dentry *folder;
static u32 level = 12;
static bool enabled = true;

static int square_get(void *data, u64 *value)
{
	*value = (u64)level * level;
	return enabled ? 0 : -EAGAIN;
}

static int square_set(void *data, u64 value)
{
	if (value > U32_MAX)
		return -ERANGE;
	level = int_sqrt64(value);
	pr_info("debugfs: level is now %u\n", level);
	return 0;
}

DEFINE_DEBUGFS_ATTRIBUTE(square_file, square_get, square_set, "%llu\n");

static int __init counter_init(void)
{
	folder = debugfs_create_dir("kobox_counter", NULL);
	debugfs_create_u32("level", 0644, folder, &level);
	debugfs_create_bool("enabled", 0644, folder, &enabled);
	debugfs_create_file_unsafe("square", 0644, folder, NULL, &square_file);
	pr_info("debugfs: ready\n");
	return 0;
}

static void __exit counter_exit(void)
{
	debugfs_remove(folder);
	pr_info("debugfs: removed\n");
}

module_init(counter_init);
module_exit(counter_exit);

MODULE_DESCRIPTION("Publishes variables in debugfs");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
