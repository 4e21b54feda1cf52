// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * proc: a file in /proc that lists something of unknown length.
 *
 * seq_file takes care of buffers and positions: the driver only says how to start, how to go on, how to stop, and what one
 * element looks like. The lock is taken in start() and given back in stop(). Writing a word to /proc/kobox_shopping adds it.
 *
 *     kernel.insmod("proc.ko"); kernel.write("/proc/kobox_shopping", b"milk"); kernel.read("/proc/kobox_shopping")
 */
#include <linux/init.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#define NAME "kobox_shopping"

struct item {
	struct list_head link;
	char *name;
};

static LIST_HEAD(shopping);
static DEFINE_MUTEX(shopping_lock);

static int shopping_add(char *name)
{
	struct item *item = kmalloc(sizeof(*item), GFP_KERNEL);

	if (!item)
		return -ENOMEM;
	item->name = name;
	mutex_lock(&shopping_lock);
	list_add_tail(&item->link, &shopping);
	mutex_unlock(&shopping_lock);
	return 0;
}

static void *shopping_start(struct seq_file *seq, loff_t *pos)
{
	mutex_lock(&shopping_lock);
	return seq_list_start(&shopping, *pos);
}

static void *shopping_next(struct seq_file *seq, void *element, loff_t *pos)
{
	return seq_list_next(element, &shopping, pos);
}

static void shopping_stop(struct seq_file *seq, void *element)
{
	mutex_unlock(&shopping_lock);
}

static int shopping_show(struct seq_file *seq, void *element)
{
	seq_printf(seq, "%s\n", list_entry(element, struct item, link)->name);
	return 0;
}

static const struct seq_operations shopping_elements = {
	.start = shopping_start,
	.next = shopping_next,
	.stop = shopping_stop,
	.show = shopping_show,
};

static int shopping_open(struct inode *inode, struct file *file)
{
	return seq_open(file, &shopping_elements);
}

static ssize_t shopping_write(struct file *file, const char __user *from, size_t size, loff_t *pos)
{
	char *name;
	int error;

	if (!size || size > 64)
		return -EINVAL;
	name = memdup_user_nul(from, size);
	if (IS_ERR(name))
		return PTR_ERR(name);
	name[strcspn(name, "\n")] = '\0';
	error = shopping_add(name);
	if (error)
		kfree(name);
	return error ?: size;
}

static const struct proc_ops shopping_file = {
	.proc_open = shopping_open,
	.proc_read = seq_read,
	.proc_write = shopping_write,
	.proc_lseek = seq_lseek,
	.proc_release = seq_release,
};

static int __init shopping_init(void)
{
	if (!proc_create(NAME, 0644, NULL, &shopping_file))
		return -ENOMEM;
	pr_info("proc: /proc/%s is there\n", NAME);
	return 0;
}

static void __exit shopping_exit(void)
{
	struct item *item, *next;

	remove_proc_entry(NAME, NULL);
	list_for_each_entry_safe(item, next, &shopping, link) {
		kfree(item->name);
		kfree(item);
	}
	pr_info("proc: /proc/%s is gone\n", NAME);
}

module_init(shopping_init);
module_exit(shopping_exit);

MODULE_DESCRIPTION("A list in /proc, written and read with seq_file");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
