// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * misc: a character device, the simplest way from a program to a driver.
 *
 * /dev/kobox_note holds one note. Writing replaces it, reading gives it back, three ioctls tell its length, clear it and limit
 * it. Pointers from a program are never followed: copy_from_user() and copy_to_user() check them and say what was not copied.
 * `.owner` makes an open file hold a reference, so the module can't be unloaded under it.
 *
 *     kernel.insmod("misc.ko"); kernel.write("/dev/kobox_note", b"milk"); kernel.read("/dev/kobox_note")
 */
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/uaccess.h>

#include "misc.h"

static DEFINE_MUTEX(note_lock);
static char note[128];
static size_t note_length;
static unsigned int note_limit = sizeof(note);

static int note_open(struct inode *inode, struct file *file)
{
	pr_info("misc: opened\n");
	return 0;
}

static int note_release(struct inode *inode, struct file *file)
{
	pr_info("misc: closed\n");
	return 0;
}

static ssize_t note_read(struct file *file, char __user *to, size_t size, loff_t *pos)
{
	ssize_t copied = 0;

	mutex_lock(&note_lock);
	if (*pos < note_length) {
		copied = min_t(size_t, size, note_length - *pos);
		if (copy_to_user(to, note + *pos, copied))
			copied = -EFAULT;
		else
			*pos += copied;
	}
	mutex_unlock(&note_lock);
	return copied;
}

static ssize_t note_write(struct file *file, const char __user *from, size_t size, loff_t *pos)
{
	ssize_t copied = size;

	mutex_lock(&note_lock);
	if (size > note_limit) {
		copied = -ENOSPC;
	} else if (copy_from_user(note, from, size)) {
		note_length = 0;
		copied = -EFAULT;
	} else {
		note_length = size;
	}
	mutex_unlock(&note_lock);
	return copied;
}

static long note_limit_set(unsigned int __user *arg)
{
	unsigned int limit, old;

	if (get_user(limit, arg))
		return -EFAULT;
	if (limit > sizeof(note))
		return -EINVAL;
	old = note_limit;
	note_limit = limit;
	return put_user(old, arg);
}

static long note_ioctl(struct file *file, unsigned int command, unsigned long arg)
{
	long result = 0;

	mutex_lock(&note_lock);
	switch (command) {
	case NOTE_LENGTH:
		result = put_user((unsigned int)note_length, (unsigned int __user *)arg);
		break;
	case NOTE_CLEAR:
		note_length = 0;
		break;
	case NOTE_LIMIT:
		result = note_limit_set((unsigned int __user *)arg);
		break;
	default:
		result = -ENOTTY;
	}
	mutex_unlock(&note_lock);
	return result;
}

static const struct file_operations note_operations = {
	.owner = THIS_MODULE,
	.open = note_open,
	.release = note_release,
	.read = note_read,
	.write = note_write,
	.unlocked_ioctl = note_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice note_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "kobox_note",
	.fops = &note_operations,
	.mode = 0666,
};

static int __init note_init(void)
{
	int error = misc_register(&note_device);

	if (error)
		return error;
	pr_info("misc: /dev/%s is there\n", note_device.name);
	return 0;
}

static void __exit note_exit(void)
{
	misc_deregister(&note_device);
	pr_info("misc: /dev/%s is gone\n", note_device.name);
}

module_init(note_init);
module_exit(note_exit);

MODULE_DESCRIPTION("A character device that keeps one note");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
