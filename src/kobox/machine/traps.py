"""Where guest code hands over to Python: an adopted function, or an instruction that Unicorn would answer from the
host.

Both end in ``hlt``. Which one it was is told by RIP, never by memory that the guest can write; a ``hlt`` anywhere
else is the guest's own. An adopted function's entry jumps to a stub that stores the argument registers in the mailbox
page; a watched function's five-byte entry pad calls a stub and then goes on. After a trap the guest always resumes
behind the byte that follows ``hlt``, so that "stopped right after hlt" can only mean that the ``hlt`` was executed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from kobox.errors import NotModelled
from kobox.machine import unicorn_abi as abi
from kobox.machine.memory import PAGE_SIZE
from kobox.machine.paging import PageMap

HLT, NOP, RET = 0xF4, 0x90, 0xC3
_JMP_REL32, _CALL_REL32 = 0xE9, 0xE8
STUB_SIZE = 64
"""Bytes a stub takes; a stub never crosses a page."""
STUBS_SIZE = 1 << 20
"""The mailbox page and all stubs; the rest of the area is plain memory for whoever made it."""

_STORES = bytes.fromhex("48893c25 48893425 48891425 48890c25 4c890425 4c890c25 48892425")
"""``mov [disp32], reg`` without the displacement, for rdi rsi rdx rcx r8 r9 rsp: the C argument registers and the
stack."""

MAILBOX = struct.Struct("<7Q")


class Trap(NamedTuple):
    """What one ``hlt`` means. ``resume`` is where the guest goes on unless the handler moves RIP."""

    name: str
    handler: Callable[[], None]
    resume: int


class TrapArea:
    """kobox's own pages at the guest address ``base``: the mailbox, then stubs. Guest tables cannot reach them."""

    def __init__(self, pages: PageMap, base: int, paddr: int, size: int) -> None:
        self._pages = pages
        self.mailbox_addr = base
        self._paddr = paddr
        self._mailbox = memoryview(pages._memory.bytes)[paddr : paddr + MAILBOX.size]
        self._stack = self._mailbox[-8:].cast("Q")
        self._next = base + PAGE_SIZE + STUB_SIZE
        self._stubs_end = base + min(size, STUBS_SIZE)
        self.end = base + size
        self._base = base
        self.traps: dict[int, Trap] = {}
        """By the address behind the ``hlt``, where RIP stands when it was executed."""
        pages.own[base] = (paddr, abi.PROT_RW)
        for off in range(PAGE_SIZE, size, PAGE_SIZE):
            pages.own[base + off] = (paddr + off, abi.PROT_RX if off < STUBS_SIZE else abi.PROT_RW)

    def arguments(self) -> tuple[int, ...]:
        """rdi, rsi, rdx, rcx, r8, r9 and rsp of the call that just trapped; each call's can be taken once.

        Whoever jumps to a stub's ``hlt`` directly leaves the stack pointer 0 here.
        """
        values = MAILBOX.unpack(self._mailbox)
        self._stack[0] = 0
        return values

    def stub(self, name: str, handler: Callable[[], None]) -> int:
        """A function that traps: store arguments, ``hlt``, return. Returns its address."""
        code = bytearray()
        for index in range(7):
            code += _STORES[index * 4 : index * 4 + 4]
            code += struct.pack("<I", (self.mailbox_addr + index * 8) & 0xFFFF_FFFF)
        return self._place(name, handler, bytes(code))

    def bare_stub(self, name: str, handler: Callable[[], None]) -> int:
        """As ``stub`` without storing anything."""
        return self._place(name, handler, b"")

    @property
    def next_code(self) -> int:
        """Where the next stub or piece of code will lie."""
        return self._next

    def resume(self, next_code: int) -> None:
        """Memory of another process holds stubs up to here."""
        self._next = next_code

    def code(self, data: bytes) -> int:
        """Plain guest code of kobox's own, at most one stub long. Returns its address."""
        address = self._take(len(data))
        self._store(address, data)
        return address

    def site(self, address: int, length: int, name: str, handler: Callable[[], None]) -> bytes:
        """Bytes that replace an instruction of ``length`` by a trap; the caller stores them at ``address``."""
        if length < 2:
            raise NotModelled(f"an instruction of {length} byte at {address:#x} cannot become a trap")
        self.traps[address + 1] = Trap(name, handler, address + length)
        return bytes([HLT]) + bytes([NOP]) * (length - 1)

    def _place(self, name: str, handler: Callable[[], None], before: bytes) -> int:
        address = self._take(len(before) + 3)
        self._store(address, before + bytes([HLT, NOP, RET]))
        behind = address + len(before) + 1
        self.traps[behind] = Trap(name, handler, behind + 1)
        return address

    def _take(self, size: int) -> int:
        address = self._next
        if size > STUB_SIZE or address + STUB_SIZE > self._stubs_end:
            raise NotModelled("no room for another trap stub")
        self._next += STUB_SIZE
        return address

    def _store(self, address: int, data: bytes) -> None:
        self._pages._memory.write(self._paddr + address - self._base, data)


def jump(source: int, target: int) -> bytes:
    """``jmp`` of five bytes."""
    return _transfer(_JMP_REL32, source, target)


def call(source: int, target: int) -> bytes:
    """``call`` of five bytes."""
    return _transfer(_CALL_REL32, source, target)


def _transfer(opcode: int, source: int, target: int) -> bytes:
    return bytes([opcode]) + struct.pack("<i", target - (source + 5))
