"""Will this module load there, and if not why: every reason at once, from the rules that the loader itself uses.

``judge`` holds a file against a ``Host`` (a kernel image with its command line, tree and configuration) without running
anything. ``texts`` explains the error texts that people paste. What runs modules is ``kernel`` and ``bare``; what
modprobe would do is ``depot``.
"""
