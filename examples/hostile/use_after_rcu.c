// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * use_after_rcu: reads what kfree_rcu() has freed.
 *
 * Until the grace period is over the read is fine, if it is inside rcu_read_lock(). This module waits on purpose until it is
 * over, and reads then. kfree_rcu() collects what it frees, and gets to it some seconds later.
 */
#include <linux/delay.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>

struct leaf {
	unsigned long colour;
	struct rcu_head rcu;
};

static int __init use_after_rcu_init(void)
{
	struct leaf *leaf = kmalloc(sizeof(*leaf), GFP_KERNEL);

	if (!leaf)
		return -ENOMEM;
	leaf->colour = 0x00ff00;
	rcu_read_lock();
	kfree_rcu(leaf, rcu);
	OPTIMIZER_HIDE_VAR(leaf);
	pr_info("use_after_rcu: inside the grace period: 0x%06lx\n", READ_ONCE(leaf->colour));
	rcu_read_unlock();
	synchronize_rcu();
	msleep(10000);
	synchronize_rcu();
	pr_info("use_after_rcu: long after it: 0x%06lx\n", READ_ONCE(leaf->colour));
	return 0;
}

static void __exit use_after_rcu_exit(void)
{
}

module_init(use_after_rcu_init);
module_exit(use_after_rcu_exit);

MODULE_DESCRIPTION("Uses memory after its grace period");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
