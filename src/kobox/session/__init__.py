"""Kernels that stay: a server process for each, spoken to over HTTP on a Unix socket by any number of clients.

``places`` says where sessions live, ``launch`` starts a server, ``client.RemoteKernel`` is a kernel of ``kobox.boot()``
at the other end of the socket. ``server`` and what it imports belong to the server process alone: a client imports
neither aiohttp nor the CPU. The API is documented in docs/sessions.md and ``openapi.json``.
"""
