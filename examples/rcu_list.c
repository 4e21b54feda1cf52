// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * rcu_list: a list that is read without a lock while it changes.
 *
 * Readers only say that they read. A writer makes a new element, puts it in the old one's place, and frees the old one after a
 * grace period: when every reader that could have seen it is done. call_rcu() frees in a callback; rcu_barrier() at unload
 * waits for the callbacks, because they are code of this module.
 *
 *     kobox run examples/prebuilt/rcu_list.ko
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/rculist.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

struct price {
	struct list_head link;
	struct rcu_head rcu;
	const char *what;
	unsigned int cents;
};

static LIST_HEAD(prices);
static DEFINE_SPINLOCK(prices_lock);
static unsigned int freed;

static int price_add(const char *what, unsigned int cents)
{
	struct price *price = kmalloc(sizeof(*price), GFP_KERNEL);

	if (!price)
		return -ENOMEM;
	price->what = what;
	price->cents = cents;
	spin_lock(&prices_lock);
	list_add_tail_rcu(&price->link, &prices);
	spin_unlock(&prices_lock);
	return 0;
}

static unsigned int total(void)
{
	struct price *price;
	unsigned int sum = 0;

	rcu_read_lock();
	list_for_each_entry_rcu(price, &prices, link)
		sum += price->cents;
	rcu_read_unlock();
	return sum;
}

static void price_free(struct rcu_head *rcu)
{
	freed++;
	kfree(container_of(rcu, struct price, rcu));
}

static int price_raise(unsigned int cents)
{
	struct price *new = kmalloc(sizeof(*new), GFP_KERNEL);
	struct price *old;

	if (!new)
		return -ENOMEM;
	spin_lock(&prices_lock);
	old = list_first_entry(&prices, struct price, link);
	new->what = old->what;
	new->cents = old->cents + cents;
	list_replace_rcu(&old->link, &new->link);
	spin_unlock(&prices_lock);
	call_rcu(&old->rcu, price_free);
	return 0;
}

static void prices_free(void)
{
	struct price *price, *next;

	list_for_each_entry_safe(price, next, &prices, link) {
		list_del_rcu(&price->link);
		call_rcu(&price->rcu, price_free);
	}
	rcu_barrier();
}

static int __init prices_init(void)
{
	int error = price_add("bread", 250) ?: price_add("milk", 120) ?: price_raise(10);

	if (error) {
		prices_free();
		return error;
	}
	pr_info("rcu_list: everything costs %u cents\n", total());
	synchronize_rcu();
	pr_info("rcu_list: a grace period has passed\n");
	return 0;
}

static void __exit prices_exit(void)
{
	prices_free();
	pr_info("rcu_list: %u prices freed by callbacks\n", freed);
}

module_init(prices_init);
module_exit(prices_exit);

MODULE_DESCRIPTION("Reads a list without a lock while it changes");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
