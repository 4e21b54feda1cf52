// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * netdev: a network device that swallows what it is given.
 *
 * ndo_start_xmit() gets a packet (an skb) and owns it from then on. Counters are per CPU, because every CPU may send at once.
 * The name has a %d, which registering fills in; `ip link set kobox0 up` makes the kernel send its first packets.
 *
 *     kobox run examples/prebuilt/netdev.ko
 */
#include <linux/etherdevice.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/skbuff.h>

static struct net_device *sink;

static netdev_tx_t sink_send(struct sk_buff *skb, struct net_device *device)
{
	dev_lstats_add(device, skb->len);
	dev_consume_skb_any(skb);
	return NETDEV_TX_OK;
}

static void sink_statistics(struct net_device *device, struct rtnl_link_stats64 *statistics)
{
	dev_lstats_read(device, &statistics->tx_packets, &statistics->tx_bytes);
}

static int sink_up(struct net_device *device)
{
	netdev_info(device, "up\n");
	netif_start_queue(device);
	return 0;
}

static int sink_down(struct net_device *device)
{
	netif_stop_queue(device);
	netdev_info(device, "down\n");
	return 0;
}

static const struct net_device_ops sink_operations = {
	.ndo_open = sink_up,
	.ndo_stop = sink_down,
	.ndo_start_xmit = sink_send,
	.ndo_get_stats64 = sink_statistics,
	.ndo_set_mac_address = eth_mac_addr,
};

static void sink_setup(struct net_device *device)
{
	ether_setup(device);
	device->netdev_ops = &sink_operations;
	device->flags |= IFF_NOARP;
	eth_hw_addr_random(device);
}

static int __init sink_init(void)
{
	int error;

	sink = alloc_netdev(0, "kobox%d", NET_NAME_ENUM, sink_setup);
	if (!sink)
		return -ENOMEM;
	sink->lstats = netdev_alloc_pcpu_stats(struct pcpu_lstats);
	if (!sink->lstats) {
		free_netdev(sink);
		return -ENOMEM;
	}
	error = register_netdev(sink);
	if (error) {
		free_percpu(sink->lstats);
		free_netdev(sink);
		return error;
	}
	pr_info("netdev: %s is there\n", sink->name);
	return 0;
}

static void __exit sink_exit(void)
{
	struct rtnl_link_stats64 statistics = {};

	unregister_netdev(sink);
	sink_statistics(sink, &statistics);
	pr_info("netdev: swallowed %llu packets\n", statistics.tx_packets);
	free_percpu(sink->lstats);
	free_netdev(sink);
}

module_init(sink_init);
module_exit(sink_exit);

MODULE_DESCRIPTION("A network device that swallows packets");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
