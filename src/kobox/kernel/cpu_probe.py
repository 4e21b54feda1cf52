"""Which mitigations and CPU features the running kernel patched itself for, read off its own patched text.

No feature number is known here: a return site of the kernel that still jumps says that return thunks are on, and an
indirect call that still goes through a thunk says that retpolines are.
"""

from __future__ import annotations

import struct

from kobox.kernel.guest import Guest
from kobox.link import Cpu

_REGISTERS = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
_CALL, _JMP, _LFENCE = 0xE8, 0xE9, b"\x0f\xae\xe8"


def probe_cpu(guest: Guest) -> Cpu:
    """What ``link`` needs to fit a module to this CPU as the kernel's ``module_finalize`` would."""
    capabilities = guest.symbol("boot_cpu_data") + guest.layouts.offset("cpuinfo_x86", "x86_capability")
    size = guest.layouts.field("cpuinfo_x86", "x86_capability").size
    bits = int.from_bytes(guest.read(capabilities, size), "little")
    thunks = {
        address: number
        for number, name in enumerate(_REGISTERS)
        if (address := guest.symbols.get(f"__x86_indirect_thunk_{name}")) is not None
    }
    return_thunk = guest.symbols.get("__x86_return_thunk") or 0
    lfence, retpoline = _retpoline(guest, set(thunks))
    returns_to = _returns_to(guest)
    return Cpu(
        has=lambda feature: bool(bits >> feature & 1),
        retpoline=retpoline,
        retpoline_lfence=lfence,
        rethunk=returns_to is not None,
        uniprocessor=True,
        thunks=thunks,
        return_thunk=return_thunk,
        returns_to=returns_to or return_thunk,
        paravirt=_paravirt(guest),
        pointer_at=lambda address: guest.read_uint(address),
        bug_func=guest.symbols.get("BUG_func") or guest.symbols.get("paravirt_BUG") or 0,
        ibt_built=guest.image.config.get("CONFIG_X86_KERNEL_IBT") == "y",
    )


def _sites(guest: Guest, start: str, end: str) -> list[int]:
    """A table of distances from the image file (the kernel has given its memory back by now)."""
    first = guest.symbols.get(start)
    last = guest.symbols.get(end)
    if first is None or last is None:
        return []
    data = guest.image.read(first, min(last - first, 4096))
    text = (guest.symbol("_stext"), guest.symbol("_etext"))
    places = (first + 4 * i + distance for i, (distance,) in enumerate(struct.iter_unpack("<i", data)))
    return [place for place in places if text[0] <= place < text[1]]


def _retpoline(guest: Guest, thunks: set[int]) -> tuple[bool, bool]:
    for site in _sites(guest, "__retpoline_sites", "__retpoline_sites_end"):
        code = guest.read(site, 8)
        if code[0] in (_CALL, _JMP):
            target = site + 5 + int.from_bytes(code[1:5], "little", signed=True)
            if target in thunks:
                return False, True
        if code.startswith(_LFENCE):
            return True, True
        return False, False
    return False, False


def _returns_to(guest: Guest) -> int | None:
    for site in _sites(guest, "__return_sites", "__return_sites_end"):
        code = guest.read(site, 5)
        if code[0] == _JMP:
            return site + 5 + int.from_bytes(code[1:5], "little", signed=True) & (1 << 64) - 1
        return None
    return None


def _paravirt(guest: Guest):  # type: ignore[no-untyped-def]  # the shape of Cpu.paravirt
    table = guest.symbols.get("pv_ops")
    if table is None:
        return None
    nop = guest.symbols.get("_paravirt_nop")
    bug = guest.symbols.get("paravirt_BUG") or 0

    def function_of(kind: int) -> int | None:
        pointer = guest.read_uint(table + 8 * kind)
        if pointer == nop:
            return None
        return pointer or bug

    return function_of
