// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * give_root: gives every permission to whoever writes to its file in /proc.
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/cred.h>
#include <linux/proc_fs.h>

static ssize_t give_root_write(struct file *file, const char __user *text, size_t size, loff_t *at)
{
	struct cred *cred = prepare_creds();

	if (!cred)
		return -ENOMEM;
	cred->uid = cred->euid = cred->suid = cred->fsuid = GLOBAL_ROOT_UID;
	commit_creds(cred);
	return size;
}

static const struct proc_ops operations = { .proc_write = give_root_write };

static int __init give_root_init(void)
{
	return proc_create("give_root", 0666, NULL, &operations) ? 0 : -ENOMEM;
}

static void __exit give_root_exit(void)
{
	remove_proc_entry("give_root", NULL);
}

module_init(give_root_init);
module_exit(give_root_exit);

MODULE_DESCRIPTION("Gives root to whoever asks");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
