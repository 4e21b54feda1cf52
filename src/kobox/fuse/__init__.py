"""File systems of this process, for the host: the kernel's FUSE protocol on ``/dev/fuse``, in Python.

A tree is a ``FileSystem``: methods on nodes and handles that it chooses itself. ``mount`` gives a ``Mounted`` with the
descriptor, ``Session(mounted.descriptor, file_system).run()`` serves it until it is unmounted. Nothing here knows what
is behind a tree. Follows include/uapi/linux/fuse.h and Documentation/filesystems/fuse.rst.
"""

from kobox.fuse.filesystem import FileSystem
from kobox.fuse.mounting import Mounted, MountOptions, is_dead, mount, unmount
from kobox.fuse.records import (
    KEEP,
    Attributes,
    Changes,
    DirEntry,
    Entry,
    IoctlResult,
    Lock,
    Opened,
    Statistics,
    device_number,
)
from kobox.fuse.request import Request
from kobox.fuse.session import Session, SessionOptions

__all__ = [
    "KEEP", "Attributes", "Changes", "DirEntry", "Entry", "FileSystem", "IoctlResult", "Lock", "MountOptions",
    "Mounted", "Opened", "Request", "Session", "SessionOptions", "Statistics", "device_number", "is_dead", "mount",
    "unmount",
]  # fmt: skip
