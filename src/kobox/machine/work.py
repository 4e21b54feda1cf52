"""How much guest code was executed, counted without leaving the emulator: the base of a clock for tracing.

Unicorn can call a function before each block of translated code. A Python function there costs a hundred times what the
block does; here it is six bytes of the host's own machine code that add the block's size to a word of guest memory, so
that guest code can read it with an ordinary load. Counting slows the guest by about a sixth. The count is a property of
the guest's run, not of the host: the same run counts the same.

Only hosts in ``_HOST_CODE`` can count; ``CodeCounter.make`` says so by returning None.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
from collections.abc import Iterable

from kobox.machine.unicorn_abi import Unicorn

_HOST_CODE = {"x86_64": bytes.fromhex("89d2 480111 c3")}
"""By ``platform.machine()``: ``void add(uc, uint64_t address, uint32_t size, uint64_t *word) { *word += size; }``:
``mov edx, edx; add [rcx], rdx; ret``."""


class CodeCounter:
    """Adds the bytes of every executed block to one word while it is on."""

    def __init__(self, cpu: Unicorn, code: mmap.mmap, word: int) -> None:
        self._cpu, self._code, self._word = cpu, code, word
        self._hooks: list[int] = []

    @classmethod
    def make(cls, cpu: Unicorn, word: int) -> CodeCounter | None:
        """``word``: host address of the 64-bit counter. None where this host cannot count."""
        native = _HOST_CODE.get(platform.machine())
        if native is None:
            return None
        try:
            code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        except OSError:
            return None  # a host that allows no code made at run time
        code[: len(native)] = native
        return cls(cpu, code, word)

    def start(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Count code at the guest addresses [start, end) of ``ranges``; replaces what was counted before."""
        self._remove()
        view = ctypes.c_char.from_buffer(self._code)
        function = ctypes.addressof(view)
        self._hooks = [self._cpu.hook_blocks(function, self._word, start, end) for start, end in ranges]
        self._cpu.forget_all_code()  # what is translated already does not count

    def stop(self) -> None:
        """Count no more. The word keeps its value."""
        if self._hooks:
            self._remove()
            self._cpu.forget_all_code()

    def _remove(self) -> None:
        while self._hooks:
            self._cpu.unhook(self._hooks.pop())
