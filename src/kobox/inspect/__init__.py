"""Running an unknown module and telling what it did to the kernel that it should not: hooks, patches, hiding, giving
permissions; and what it registered openly.

``Inspector`` loads modules into a kernel of its own; pictures of the kernel before and after are compared, and what the
kernel says in one place is held against what it says in another.
"""

from __future__ import annotations

from kobox.inspect.records import Finding, Inspection
from kobox.inspect.running import Inspector

__all__ = ["Finding", "Inspection", "Inspector"]
