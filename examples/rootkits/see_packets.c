// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * see_packets: sees every packet that comes in, as back doors do that wait for a magic one.
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <net/net_namespace.h>

static unsigned int look(void *unused, struct sk_buff *packet, const struct nf_hook_state *state)
{
	return NF_ACCEPT;
}

static const struct nf_hook_ops operations = {
	.hook = look,
	.pf = NFPROTO_IPV4,
	.hooknum = NF_INET_PRE_ROUTING,
	.priority = NF_IP_PRI_FIRST,
};

static int __init see_packets_init(void)
{
	return nf_register_net_hook(&init_net, &operations);
}

static void __exit see_packets_exit(void)
{
	nf_unregister_net_hook(&init_net, &operations);
}

module_init(see_packets_init);
module_exit(see_packets_exit);

MODULE_DESCRIPTION("Sees packets");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
