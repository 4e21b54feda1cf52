"""Small things a loader does in the guest: print, taint, allocate, link lists. Generators yield the calls they need.

A call is a tuple ``(function address, argument, …)``; whoever drives the generator runs it in a guest task and sends
the 64-bit result back.
"""

from __future__ import annotations

from collections.abc import Generator

from kobox.errors import Errno
from kobox.kernel.guest import Guest

Call = tuple[int, ...]


class Interruptible(Call):
    """A call while which the load waits for others: a signal ends it. Everything else a load does goes on to its
    end."""


Steps = Generator[Call, int, None]
Result = Generator[Call, int, int]

_GFP_KERNEL = 0xCC0
SCRATCH_OFFSET = 1 << 20
"""Where in kobox's own pages the scratch memory for arguments starts."""
HEAP_BYTES = 160 << 10
"""The end of kobox's own pages is the memory checker's (``heapcheck``)."""


class Env:
    """Guest operations that need no policy."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        area = guest.machine.area
        self._scratch = area.mailbox_addr + SCRATCH_OFFSET
        self._scratch_end = area.end - HEAP_BYTES

    # -- scratch memory -------------------------------------------------------------------------------------------

    def fits(self, size: int, offset: int = 0) -> bool:
        """Whether ``scratch`` has room for so many bytes."""
        return self._scratch + offset + size <= self._scratch_end

    def scratch(self, data: bytes | bytearray, offset: int = 0) -> int:
        """Bytes at a kernel address for the length of one call; ``offset`` keeps several apart."""
        address = self._scratch + offset
        if not self.fits(len(data), offset):
            raise Errno(12, f"{len(data)} bytes do not fit the loader's scratch memory")
        self.guest.write(address, data)
        return address

    # -- log and taint --------------------------------------------------------------------------------------------

    def printk(self, level: int, text: str) -> Steps:
        """One record in the kernel's log, through its own ``_printk``."""
        line = text.encode("utf-8", "surrogateescape") + b"\0"
        form = self.scratch(b"\x01%d%%s\n\0" % level)
        yield (self.guest.first_symbol("_printk", "printk"), form, self.scratch(line, 64))

    def taint(self, bit: int, lockdep_off: bool = False) -> Steps:
        trust = self.guest.layouts.enum("lockdep_ok")
        yield (
            self.guest.symbol("add_taint"),
            bit,
            trust["LOCKDEP_NOW_UNRELIABLE" if lockdep_off else "LOCKDEP_STILL_OK"],
        )

    @property
    def taints(self) -> int:
        return self.guest.read_uint(self.guest.symbol("tainted_mask"))

    # -- memory ---------------------------------------------------------------------------------------------------

    def kmalloc(self, size: int) -> Result:
        """Zeroed memory of the guest's own allocator; ``Errno(ENOMEM)``."""
        allocate = self.guest.first_symbol("__kmalloc", "__kmalloc_noprof")
        address = yield (allocate, size, _GFP_KERNEL | 0x100)
        if not address:
            raise Errno(12, f"kmalloc({size}) failed")
        return address

    def kstrdup(self, data: bytes) -> Result:
        address = yield from self.kmalloc(len(data) + 1)
        self.guest.write(address, data + b"\0")
        return address

    def kfree(self, address: int) -> Steps:
        if address:
            yield (self.guest.symbol("kfree"), address)

    # -- lists (include/linux/list.h) -----------------------------------------------------------------------------

    def list_init(self, head: int) -> None:
        self.guest.write_uint(head, head)
        self.guest.write_uint(head + 8, head)

    def list_add(self, entry: int, head: int) -> None:
        """Insert right behind ``head``."""
        first = self.guest.read_uint(head)
        self.guest.write_uint(entry, first)
        self.guest.write_uint(entry + 8, head)
        self.guest.write_uint(first + 8, entry)
        self.guest.write_uint(head, entry)

    def list_del(self, entry: int) -> None:
        """Unlink for readers that may still stand on the entry: its own ``next`` stays."""
        after, before = self.guest.read_uint(entry), self.guest.read_uint(entry + 8)
        self.guest.write_uint(before, after)
        self.guest.write_uint(after + 8, before)

    def list_empty(self, head: int) -> bool:
        return self.guest.read_uint(head) == head
