"""The network of a running guest, from Python: links and addresses through rtnetlink, sockets by system calls.

``netlink`` packs and reads messages and knows no guest; ``links`` and ``sockets`` make the calls. Everything in between
(routes, ARP, bridging, queues) is the kernel's own.
"""
