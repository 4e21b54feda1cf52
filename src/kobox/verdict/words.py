"""What kmod's tools say for an error number, which is all that most users see."""

from __future__ import annotations

import errno
import os

_INSMOD = {
    errno.ENOEXEC: "Invalid module format",
    errno.ENOENT: "Unknown symbol in module",
    errno.ESRCH: "Module has wrong symbol version",
    errno.EINVAL: "Invalid parameters",
}


def insmod_says(number: int) -> str:
    """insmod's words; for most numbers the C library's."""
    return _INSMOD.get(number) or os.strerror(number)
