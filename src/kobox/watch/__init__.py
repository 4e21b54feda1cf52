"""The edit loop: files change, modules are built, loaded into a warm kernel and tested, and events say what came of it.

``loop`` puts the parts together: ``changes`` (the file system), the room ``build``, and ``worker``, a process that
holds booted kernels and runs each job in a fork of itself.
"""

from kobox.watch.loop import Watch, WatchOptions
from kobox.watch.records import Event

__all__ = ["Event", "Watch", "WatchOptions"]
