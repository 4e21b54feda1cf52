"""Unmodified programs against a session's kernel, without root: ``kobox enter``.

A program runs in a user and mount namespace of its own. Files of the kernel (``/proc``, ``/sys``, ``/dev``) are a tree
of ``kobox.fuse``; system calls that are the kernel's business (``init_module`` and its like, ``syslog``, ``uname``, the
opening of devices) stop at a seccomp filter and are answered by the keeper, one process with one loop, which has it
all done by the session. Follows seccomp_unotify(2), user_namespaces(7), Documentation/filesystems/fuse.rst.
"""
