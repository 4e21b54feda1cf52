"""The bottom of a worker's kernel stack: the frame of a system call, as if a program had called the kernel.

``entry_SYSCALL_64`` saves the program's registers at the top of the task's stack and calls ``do_syscall_64``. A job
starts with the return address of that call on top of such a frame: unwinders (oops reports, livepatch's consistency
check) end there as they end on a real machine. What lies at the return address is kobox's trap; nothing else ever comes
there, since no program runs in this kernel. Follows arch/x86/entry/entry_64.S and kernel/stacktrace.c.
"""

from __future__ import annotations

import struct

from kobox.errors import NotModelled
from kobox.kernel.guest import Guest
from kobox.machine import traps
from kobox.machine.unicorn_abi import REG

_USER_CS, _USER_SS = 0x33, 0x2B  # arch/x86/include/asm/segment.h: part of the user's interface
_USER_IP, _USER_SP = 0x40_1000, 0x7FFF_F000_0000
"""Where the program that is not there would be."""
_INTERRUPTS_ON = 0x202
_NO_CALL = (1 << 64) - 1
_ENTRY_SIZE = 1024
"""Bytes in which the entry code calls ``do_syscall_64``."""
_CALL = 0xE8


class SyscallFrame:
    """The frames of one guest's workers. ``return_address`` is where a job returns to."""

    def __init__(self, guest: Guest, returned: int) -> None:
        self._guest = guest
        self._returned = returned
        self.return_address = self._behind_call(guest.symbol("entry_SYSCALL_64_after_hwframe"))
        self._size = guest.layouts.size("pt_regs")
        self._number_at = guest.layouts.offset("pt_regs", "orig_ax") + 8
        """From the stack pointer of a call."""
        self.numbers: dict[int, int] = {}
        """Of system calls, by the address of their function: while one runs, its number stands in the frame. Without,
        the kernel takes it for one of another calling convention: bit 30 of the number tells x32."""
        self._numbered: set[int] = set()
        """Tasks whose frames have a number now."""
        self._top_at = 0

    def _behind_call(self, entry: int) -> int:
        target = self._guest.symbol("do_syscall_64")
        code = self._guest.image.read(entry, _ENTRY_SIZE)
        for at in range(len(code) - 5):
            if (
                code[at] == _CALL
                and entry + at + 5 + int.from_bytes(code[at + 1 : at + 5], "little", signed=True) == target
            ):
                return entry + at + 5
        raise NotModelled(f"kernel {self._guest.image.release} does not enter system calls by do_syscall_64")

    def install(self) -> None:
        """Once in a kernel's life, when it has patched its entry code for the last time."""
        self._guest.machine.patch(self.return_address, traps.jump(self.return_address, self._returned))

    def fill(self) -> None:
        """Store the program's registers for the present task, which is new."""
        base = self.stack_pointer + 8
        self._guest.write(base, bytes(self._size))
        regs = self._guest.view("pt_regs", base)
        for member, value in (
            ("cs", _USER_CS), ("ss", _USER_SS), ("ip", _USER_IP), ("sp", _USER_SP), ("flags", _INTERRUPTS_ON),
            ("orig_ax", _NO_CALL),
        ):  # fmt: skip
            regs[member] = value

    @property
    def stack_pointer(self) -> int:
        """RSP of a function that the present task is called with."""
        if not self._top_at:
            guest = self._guest
            if guest.has("cpu_current_top_of_stack"):
                self._top_at = guest.percpu("cpu_current_top_of_stack")
            else:
                self._top_at = guest.percpu("pcpu_hot") + guest.layouts.offset("pcpu_hot", "top_of_stack")
        return self._guest.read_uint(self._top_at) - self._size - 8

    def enter(self, function: int) -> None:
        """Have the present task call a function; its arguments are in the registers already."""
        machine = self._guest.machine
        rsp = self.stack_pointer
        machine.pages.write(rsp, struct.pack("<Q", self.return_address))
        machine.cpu.write(REG["rsp"], rsp)
        machine.cpu.write(REG["rip"], function)
        number = self.numbers.get(function)
        if number is not None:
            self._guest.write_uint(rsp + self._number_at, number)
            self._numbered.add(self._guest.current)

    def left(self, task: int) -> None:
        """A call of the present task has returned."""
        if task in self._numbered:
            self._numbered.discard(task)
            self._guest.write_uint(self.stack_pointer + self._number_at, _NO_CALL)

    def forget(self) -> None:
        """After a reset: frames are as they were."""
        self._numbered.clear()

    def is_left(self) -> bool:
        """Whether the stack is as it must be when a call returns: nobody jumped here."""
        return self._guest.machine.cpu.read(REG["rsp"]) == self.stack_pointer + 8
