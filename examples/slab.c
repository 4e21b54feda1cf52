// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * slab: a cache for objects of one kind.
 *
 * A driver that allocates many equal objects makes its own cache. A constructor runs when the cache gets fresh memory, not at
 * every allocation, so a freed object must go back in its constructed state: here, that is `uses == 0`. Destroying a cache
 * that still holds objects is an error which the kernel reports.
 *
 *     kobox run examples/prebuilt/slab.ko objects=10
 */
#include <linux/init.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/slab.h>

static unsigned int objects = 8;
module_param(objects, uint, 0444);
MODULE_PARM_DESC(objects, "How many objects are taken from the cache");

struct ticket {
	u64 number;
	unsigned int uses;
	struct list_head link;
};

static struct kmem_cache *tickets;
static unsigned int constructed;
static LIST_HEAD(taken);

static void ticket_construct(void *object)
{
	struct ticket *ticket = object;

	ticket->uses = 0;
	constructed++;
}

static void tickets_return(void)
{
	struct ticket *ticket, *next;

	list_for_each_entry_safe(ticket, next, &taken, link) {
		list_del(&ticket->link);
		ticket->uses = 0;
		kmem_cache_free(tickets, ticket);
	}
}

static int __init slab_init(void)
{
	struct ticket *ticket;
	unsigned int i;
	u64 sum = 0;

	tickets = kmem_cache_create("kobox_tickets", sizeof(struct ticket), __alignof__(struct ticket), 0, ticket_construct);
	if (!tickets)
		return -ENOMEM;

	for (i = 0; i < objects; i++) {
		ticket = kmem_cache_alloc(tickets, GFP_KERNEL);
		if (!ticket) {
			tickets_return();
			kmem_cache_destroy(tickets);
			return -ENOMEM;
		}
		ticket->number = i;
		ticket->uses++;
		list_add(&ticket->link, &taken);
	}

	list_for_each_entry(ticket, &taken, link)
		sum += ticket->number * ticket->uses;
	pr_info("slab: %u objects of %zu bytes, numbers add up to %llu\n", objects, sizeof(struct ticket), sum);
	pr_info("slab: constructed before use: %s\n", constructed >= objects ? "yes" : "no");
	return 0;
}

static void __exit slab_exit(void)
{
	tickets_return();
	kmem_cache_destroy(tickets);
	pr_info("slab: cache destroyed\n");
}

module_init(slab_init);
module_exit(slab_exit);

MODULE_DESCRIPTION("Takes objects from a cache of its own and gives them back");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
