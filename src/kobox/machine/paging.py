"""Virtual addresses: the guest's own page tables, walked in Python when Unicorn asks for a page.

Two ranges need no walk: the kernel's direct map of all memory, and the pages that kobox itself owns (trap stubs,
mailbox). Everything else (kernel text, vmalloc, modules, fixmap, user pages) is what the guest's tables say, so that
its own ``set_memory_ro``, ``vmap``, ``ioremap`` and stack guard pages mean what they mean on hardware. Four-level
paging as in the Intel SDM, volume 3, chapter 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kobox.errors import GuestError
from kobox.machine import unicorn_abi as abi
from kobox.machine.memory import PAGE_MASK, PAGE_SIZE, PhysicalMemory

_PRESENT, _WRITABLE, _USER, _LARGE, _NX = 1, 2, 4, 1 << 7, 1 << 63
_FRAME = 0x000F_FFFF_FFFF_F000
_CANONICAL = (0, 0x1FFFF)
"""Bits 47 to 63 of an address are all the same; the CPU refuses every other one."""


class Miss(NamedTuple):
    """The last page the CPU was refused: its address, what for (read, write, fetch), and whether it was there."""

    page: int
    access: str
    present: bool


class PageMap:
    """Answers the CPU's page requests, and Python's own questions about virtual addresses."""

    def __init__(
        self, memory: PhysicalMemory, read_root: Callable[[], int], protects: Callable[[], bool] = lambda: True
    ) -> None:
        self._memory = memory
        self._read_root = read_root
        self._protects = protects
        """Whether the kernel itself is bound by read-only pages: CR0.WP."""
        self._words = memory.words
        self.root = 0
        """Physical address of the table last used for the kernel half, which all of the guest's tables share."""
        self.ram_end = memory.size
        """Physical addresses that guest tables may name end here, but for ``devices``."""
        self.devices: list[tuple[int, int]] = []
        """Physical ranges [start, end) of memory-mapped registers."""
        self.open_bus: int | None = None
        """Physical page that stands for all others: nothing answers there. None: naming one is a fault."""
        self.linear_base = 0
        self.linear_end = 0
        """The direct map [linear_base, linear_end) of physical memory from 0; equal: none."""
        self.own: dict[int, tuple[int, int]] = {}
        """kobox's own pages: virtual page -> (physical page, protection). Guest tables cannot change them."""
        self.window = (0, 0, 0)
        """(start, end, physical start) of a range of user addresses that every task sees: buffers of system calls."""
        self.miss = Miss(0, "read", False)
        self.stable = (0, 0)
        """Physical range [start, end) whose code changes only through ``Machine.patch``: the kernel's own image."""
        self.lasting: list[tuple[int, int]] = []
        """Virtual ranges [start, end) that stay mapped as they are once the kernel has booted: its image, its page
        array. A permission that one of them lacks is looked up anew, so that granting it later works."""
        self._known: dict[int, tuple[int, int]] = {}
        self._sure: dict[int, tuple[int, int]] = {}
        """Of these, what the tables say right after a reset."""
        self.overwritten: set[int] = set()
        """Physical pages of ``stable`` that the guest itself may have written: through the direct map, or with CR0.WP
        off."""
        self.executed: set[int] = set()
        """Physical pages outside it that were executed and not written by Python since."""
        self.on_code_write: Callable[[int], None] = lambda page: None
        """Called with a page of ``executed`` before Python changes it: translations of it must go."""
        self.alias_base = 0
        """While set, all of memory is executable from this address on, so that code can be found by physical page."""

    def fill(self, vaddr: int, access: int) -> tuple[int, int] | None:
        """Serve one page request of the CPU."""
        if self.linear_base <= vaddr < self.linear_end:
            if access != abi.FETCH:
                paddr = vaddr - self.linear_base
                if not self.stable[0] <= paddr < self.stable[1]:
                    return paddr, abi.PROT_RW
                if access != abi.WRITE:
                    return paddr, abi.PROT_READ  # so that a write is asked for, and noted
                self.overwritten.add(paddr)
                return paddr, abi.PROT_RW
            self.miss = Miss(vaddr, "fetch", True)
            return None
        need = _NEED[access]
        found = self._known.get(vaddr)
        if found is not None and found[1] & need:
            return found
        if self.alias_base and 0 <= vaddr - self.alias_base < self._memory.size:
            return vaddr - self.alias_base, abi.PROT_RX
        start, end, paddr = self.window
        if start <= vaddr < end and access != abi.FETCH:
            return vaddr - start + paddr, abi.PROT_RW
        found = self.own.get(vaddr)
        if found is None:
            found = self.walk(vaddr)
            if found is not None and not self.stable[0] <= found[0] < self.stable[1]:
                if access == abi.FETCH:
                    self.executed.add(found[0])
                elif found[0] not in self.executed:
                    found = found[0], found[1] & ~abi.PROT_EXEC  # so that a fetch is asked for, and noted
        if found is not None and found[1] & need:
            for first, behind in self.lasting:
                if first <= vaddr < behind:
                    self._known[vaddr] = found
            return found
        if found is not None and access == abi.WRITE and vaddr >> 63 and not self._protects():
            # lasts until CR0 is written again, which makes the CPU forget what it knows of pages
            self.overwritten.add(found[0])
            return found[0], found[1] | abi.PROT_WRITE
        self.miss = Miss(vaddr, _NAMES[access], found is not None)
        return None

    def forget_grants(self) -> None:
        """After a reset, with the guest's tables back: what was granted since is not granted any more.

        A page that was met since is looked up once in the tables as they are now; resets come often, and all of them go
        back to the same tables.
        """
        for vaddr in self._known.keys() - self._sure.keys():
            found = self.walk(vaddr)
            if found is not None:
                self._sure[vaddr] = found
        self._known = dict(self._sure)

    def forget_lasting(self) -> None:
        """Before another state becomes the one that resets go back to."""
        self._known.clear()
        self._sure.clear()

    def walk(self, vaddr: int) -> tuple[int, int] | None:
        """(physical page, protection) by the guest's tables, or None. No side effects: accessed bits stay as they
        are."""
        if vaddr >> 47 not in _CANONICAL:
            return None
        if vaddr >> 63:
            found = self._walk(self.root, vaddr)
            if found is not None:
                return found
        root = self._read_root() & _FRAME
        if vaddr >> 63:
            if root == self.root:
                return None
            self.root = root
        return self._walk(root, vaddr)

    def _walk(self, table: int, vaddr: int) -> tuple[int, int] | None:
        words = self._words
        limit = self._memory.size
        writable, no_execute = _WRITABLE, 0
        for shift in (39, 30, 21, 12):
            if table >= limit:
                return None
            entry = words[(table >> 3) + ((vaddr >> shift) & 511)]
            if not entry & _PRESENT:
                return None
            writable &= entry
            no_execute |= entry & _NX
            if shift == 12 or (entry & _LARGE and shift != 39):
                span = (1 << shift) - 1
                paddr = (entry & _FRAME & ~span) | (vaddr & span & PAGE_MASK)
                protection = abi.PROT_READ | (abi.PROT_WRITE if writable else 0) | (0 if no_execute else abi.PROT_EXEC)
                if paddr >= self.ram_end and not any(start <= paddr < end for start, end in self.devices):
                    # nothing answers there, and kobox's own pages are not the guest's to map
                    return None if self.open_bus is None else (self.open_bus, protection & ~abi.PROT_EXEC)
                return paddr, protection
            table = entry & _FRAME
        return None

    def physical(self, vaddr: int) -> int | None:
        """Physical address of a virtual one, whatever its protection; None where nothing is mapped."""
        if self.linear_base <= vaddr < self.linear_end:
            return vaddr - self.linear_base
        start, end, paddr = self.window
        if start <= vaddr < end:
            return vaddr - start + paddr
        page = vaddr & PAGE_MASK
        found = self._known.get(page) or self.own.get(page) or self.walk(page)
        return None if found is None else found[0] | (vaddr & (PAGE_SIZE - 1))

    def executable(self, vaddr: int) -> bool:
        """Whether code may be fetched there."""
        page = vaddr & PAGE_MASK
        found = self.own.get(page) or self.walk(page)
        return found is not None and bool(found[1] & abi.PROT_EXEC)

    def read(self, vaddr: int, size: int) -> bytes:
        """Guest bytes by virtual address; ``GuestError`` names the first page that is not there."""
        if self.linear_base <= vaddr and vaddr + size <= self.linear_end:
            paddr = vaddr - self.linear_base
            return bytes(self._memory.bytes[paddr : paddr + size])
        if 0 < size <= PAGE_SIZE - (vaddr & PAGE_SIZE - 1):
            paddr = self._place(vaddr)
            return bytes(self._memory.bytes[paddr : paddr + size])
        return b"".join([bytes(self._memory.bytes[p : p + n]) for p, n in self._spans(vaddr, size)])

    def write(self, vaddr: int, data: bytes | bytearray | memoryview) -> None:
        """Store bytes whatever the page's protection (kobox is below the guest's rules)."""
        size = len(data)
        if 0 < size <= PAGE_SIZE - (vaddr & PAGE_SIZE - 1):  # nearly all of them: a number
            paddr = self._place(vaddr)
            self.note_write(paddr, size)
            self._memory.bytes[paddr : paddr + size] = data
            return
        done = 0
        for paddr, count in self._spans(vaddr, size):
            self.note_write(paddr, count)
            self._memory.bytes[paddr : paddr + count] = bytes(data[done : done + count])
            done += count

    def note_write(self, paddr: int, count: int) -> None:
        """Physical memory is about to change without the CPU: translations of code there go."""
        if not self.executed:
            return
        for page in range(paddr & PAGE_MASK, paddr + count, PAGE_SIZE):
            if page in self.executed:
                self.executed.discard(page)
                self.on_code_write(page)

    def _place(self, vaddr: int) -> int:
        """Physical address of a virtual one that must be there."""
        paddr = self.physical(vaddr)
        if paddr is None or paddr >= self._memory.size:
            raise GuestError(f"no memory at guest address {vaddr:#x}")
        return paddr

    def _spans(self, vaddr: int, size: int) -> list[tuple[int, int]]:
        spans = []
        while size > 0:
            paddr = self._place(vaddr)
            if self.linear_base <= vaddr < self.linear_end:
                count = min(size, self._memory.size - paddr)
            else:
                count = min(size, PAGE_SIZE - (vaddr & (PAGE_SIZE - 1)))
            spans.append((paddr, count))
            vaddr += count
            size -= count
        return spans


_NEED = {abi.FETCH: abi.PROT_EXEC, abi.WRITE: abi.PROT_WRITE, abi.READ: abi.PROT_READ}
_NAMES = {abi.FETCH: "fetch", abi.WRITE: "write", abi.READ: "read"}
