"""kobox: real Linux kernel modules in a kernel that lives in this process, and kmod's tools on any root.

``kobox.boot()`` is the front door; everything it returns is documented in ``kobox.box``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kobox.box import Kernel, boot

__version__ = "0.1.0"
__all__ = ["Kernel", "__version__", "boot"]


def __getattr__(name: str) -> Any:
    """Import the front door only when it is used: ``kobox modprobe`` never pays for the CPU."""
    if name in ("boot", "Kernel"):
        from kobox import box

        return getattr(box, name)
    raise AttributeError(f"module 'kobox' has no attribute {name!r}")
