"""A filter in front of the guest's own free functions, in guest code: only pages with tracked objects reach Python.

Objects that a module allocated are often freed by the kernel (``kfree_rcu``, sysfs, the network stack). Five bytes
behind a function's tracing pad jump to the filter. It looks up the page of the pointer in a table of bytes; zero: the
displaced instructions run and the function goes on, without a trap; else the checker's stub takes the call.
"""

from __future__ import annotations

import struct

from kobox.errors import NotModelled
from kobox.kernel.dispatch import body_of
from kobox.kernel.guest import Guest
from kobox.link.insn import Insn, decode
from kobox.machine import traps

TABLE_BITS = 17
TABLE_SIZE = 1 << TABLE_BITS
"""One byte for each page of 512 MiB; more memory shares them, which costs traps and nothing else."""
_JUMP = 5
_LOAD = {"rdi": b"\x48\x89\xf8", "rsi": b"\x48\x89\xf0"}
"""``mov rax, reg``: rax carries no argument."""
_NOPS = frozenset({b"\x0f\x1f\x44\x00\x00", b"\x66\x90"})


def index_of(address: int) -> int:
    """The table's byte for an address."""
    return address >> 12 & TABLE_SIZE - 1


def guard(guest: Guest, name: str, pointer: str, stub: int, table: int, place: int) -> bytes:
    """Code of the filter for the address ``place``; the caller stores it and then calls ``attach``.

    ``pointer`` is the register with the address that is freed; empty: every call goes to the stub.
    """
    entry = body_of(guest, guest.symbol(name))
    code = bytearray()
    if pointer:
        code += _LOAD[pointer]
        code += b"\x48\xc1\xe8\x0c"  # shr rax, 12
        code += b"\x25" + struct.pack("<I", TABLE_SIZE - 1)  # and eax, mask
        code += b"\x80\xb8" + struct.pack("<i", table - (1 << 64)) + b"\x00"  # cmp byte [rax + table], 0
        code += b"\x0f\x85" + struct.pack("<i", stub - (place + len(code) + 6))  # jne stub
    else:
        code += traps.jump(place, stub)
    return bytes(code) + displaced(guest, name, entry, place + len(code))


def native_offset(pointer: str) -> int:
    """Where in a filter the displaced instructions begin: the function itself, unfiltered."""
    return 25 if pointer else _JUMP


def attach(guest: Guest, name: str, place: int) -> None:
    """Make the function start with its filter."""
    entry = body_of(guest, guest.symbol(name))
    guest.machine.patch(entry, traps.jump(entry, place))


def displaced(guest: Guest, name: str, entry: int, place: int) -> bytes:
    """The instructions that the jump covers, fitted to run at ``place``, and a jump to what follows them.

    ``NotModelled`` where the kernel may patch them or jumps between them.
    """
    found = guest.symbols.at(entry)
    end = entry - found.offset + found.size if found is not None else entry + 64
    body = guest.read(entry, end - entry)
    at = 0
    moved = bytearray()
    while at < _JUMP:
        insn = decode(body, at)
        raw = body[at : at + insn.length] if insn else b""
        if insn is None or raw in _NOPS or insn.opcode in (b"\xe8", b"\xe9", b"\xeb"):
            raise NotModelled(f"{name} starts with code that cannot be moved: {body[:16].hex()}")
        moved += _moved(insn, raw, entry + at, place + len(moved))
        at += insn.length
    if _is_jumped_into(body, at):
        raise NotModelled(f"{name} jumps into its own first {at} bytes")
    return bytes(moved) + traps.jump(place + len(moved), entry + at)


def _moved(insn: Insn, raw: bytes, source: int, target: int) -> bytes:
    """The same instruction at another place: a short conditional jump becomes a long one."""
    if insn.branch is not None:
        offset, width = insn.branch
        distance = int.from_bytes(raw[offset : offset + width], "little", signed=True)
        goal = source + insn.length + distance
        opcode = bytes([0x0F, insn.opcode[0] + 0x10]) if width == 1 else insn.opcode
        return opcode + struct.pack("<i", goal - (target + len(opcode) + 4))
    if insn.rip is not None:
        (distance,) = struct.unpack_from("<i", raw, insn.rip)
        return raw[: insn.rip] + struct.pack("<i", distance + source - target) + raw[insn.rip + 4 :]
    return raw


def _is_jumped_into(body: bytes, end: int) -> bool:
    at = 0
    while at < len(body):
        insn = decode(body, at)
        if insn is None:
            return False
        if insn.branch is not None:
            offset, width = insn.branch
            goal = at + insn.length + int.from_bytes(body[at + offset : at + offset + width], "little", signed=True)
            if 0 < goal < end:
                return True
        at += insn.length
    return False
