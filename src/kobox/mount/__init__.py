"""Disk images mounted on this host by the file systems of a distribution's kernel: ``kobox mount``.

A kernel is booted in this process, the image becomes its disk, its own module mounts it, and every request that the
host's kernel sends over FUSE becomes system calls of that kernel.
"""
