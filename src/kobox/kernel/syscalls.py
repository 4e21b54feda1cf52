"""System calls made by Python: the kernel's own entry functions, run in a guest task, with buffers in the user window.

The kernel sees an ordinary call of an ordinary task: permission checks, user copies and errors are its own.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from typing import NamedTuple

from kobox.abi.syscalls import number_of
from kobox.errors import Errno, KoboxError
from kobox.kernel.guest import Guest, errno_of, signed64
from kobox.kernel.tasks import Job, TaskDied

_ORDER = ("di", "si", "dx", "r10", "r8", "r9")
AT_FDCWD = -100
O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_NONBLOCK, O_DIRECTORY = 0, 1, 2, 0o100, 0o1000, 0o4000, 0o200000
_CALLED = {
    "newstat": "stat", "newfstat": "fstat", "newlstat": "lstat", "newuname": "uname", "umount": "umount2",
    "sendfile64": "sendfile",
}  # fmt: skip
"""Calls whose functions have another name than they have in the table of numbers."""
_PAGE = 4096
_SLOTS = 64
_LISTENER_PAGES = 5
_ARENA_BYTES = 24 << 20


class ListenerWindow(NamedTuple):
    """User addresses that only the task which hears uevents uses: registers of its call, and a buffer."""

    regs: int
    buffer: int
    size: int


class Window:
    """Room for the buffers of one system call, in user addresses that every task sees."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        start, end, _ = guest.machine.pages.window
        last = end - _PAGE * (_SLOTS + 1 + _LISTENER_PAGES)
        self._start, self._end = start, last - _ARENA_BYTES
        self._next = start
        self.arena = Arena(self._end, last)

    def clear(self) -> None:
        self._next = self._start

    def reserve(self, size: int) -> int:
        """``size`` bytes; what they hold is undefined."""
        address = self._next
        self._next = (address + size + 15) & ~15
        if self._next > self._end:
            raise Errno(12, f"a buffer of {size} bytes does not fit the window for system calls")
        return address

    def view(self, address: int, size: int) -> memoryview:
        """Bytes of the window where they lie: to read and to write without a copy. They change with the next call."""
        start, _, physical = self._guest.machine.pages.window
        at = address - start + physical
        return self._guest.machine.memory.bytes[at : at + size]

    def put(self, data: bytes | bytearray | memoryview) -> int:
        address = self.reserve(len(data))
        self._guest.write(address, data)
        return address

    def text(self, value: str | bytes) -> int:
        """A string with its NUL."""
        raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        return self.put(raw + b"\0")


class Arena:
    """Room for the buffers of calls that stay in flight while others are made: first fit, given back one by one."""

    def __init__(self, start: int, end: int) -> None:
        self._start, self._end = start, end
        self._taken: list[tuple[int, int]] = []
        """(start, end), by address."""

    def take(self, size: int) -> int:
        """``size`` bytes in user addresses; ``Errno(ENOMEM)`` where there is no room."""
        address, size = self._start, (size + 63) & ~63 or 64
        for at, (first, behind) in enumerate(self._taken):
            if first - address >= size:
                self._taken.insert(at, (address, address + size))
                return address
            address = behind
        if self._end - address < size:
            raise Errno(12, f"no room for a buffer of {size} bytes")
        self._taken.append((address, address + size))
        return address

    def give(self, address: int) -> None:
        """Take back what ``take`` gave."""
        self._taken = [one for one in self._taken if one[0] != address]


class Syscalls:
    """``call("openat", ...)``: numbers in, number out; ``checked`` raises ``Errno``."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.window = Window(guest)
        self._slot = 0
        self._functions: dict[str, int] = {}

    def prepare(self, name: str, *arguments: int) -> tuple[int, int]:
        """The guest call that makes a system call: its entry function and the registers it reads."""
        guest = self.guest
        # the registers of a call in flight must outlive the next ones, so each has a page of its own at the far end
        self._slot = (self._slot + 1) % _SLOTS
        return self.prepare_at(guest.machine.pages.window[1] - _PAGE * (1 + self._slot), name, *arguments)

    @property
    def listener_window(self) -> ListenerWindow:
        start = self.guest.machine.pages.window[1] - _PAGE * (_SLOTS + _LISTENER_PAGES)
        return ListenerWindow(start, start + _PAGE, _PAGE * (_LISTENER_PAGES - 1))

    def prepare_at(self, regs: int, name: str, *arguments: int) -> tuple[int, int]:
        """As ``prepare`` with the registers in a page of the caller's."""
        guest = self.guest
        frame = bytearray(guest.layouts.size("pt_regs"))
        for register, value in zip(_ORDER, arguments, strict=False):
            struct.pack_into("<Q", frame, guest.layouts.offset("pt_regs", register), value & (1 << 64) - 1)
        guest.write(regs, bytes(frame))
        function = self._functions.get(name)
        if function is None:
            function = self._functions[name] = guest.symbol(f"__x64_sys_{name}")
            number = number_of(_CALLED.get(name, name))
            if number is not None:
                guest.tasks.number_call(function, number)
        return function, regs

    def start(self, name: str, *arguments: int) -> Job:
        """Begin a call; ``guest.tasks`` finishes it."""
        return self.guest.tasks.start(*self.prepare(name, *arguments))

    def call(self, name: str, *arguments: int) -> int:
        """The raw result: negative for an errno."""
        job = self.start(name, *arguments)
        self.guest.tasks.finish(job)
        if job.died:
            raise TaskDied(f"the task was killed in {name}()")
        return signed64(job.result)

    def in_one_task(self, steps: Generator[tuple[str, *tuple[int, ...]], int, int]) -> int:
        """Several calls by one task, for what a call changes in its task only: namespaces, say.

        ``steps`` yields names with arguments and is sent the raw results; its value comes back. What it raises ends the
        calls where they are and is raised here.
        """
        ended: list[int | KoboxError] = []

        def following(result: int | None) -> tuple[int, ...] | None:
            try:
                name, *arguments = next(steps) if result is None else steps.send(signed64(result))
                return self.prepare(name, *arguments)
            except StopIteration as end:
                ended.append(end.value)
            except KoboxError as error:  # not out of a trap of the task, which would lose its way
                ended.append(error)
            return None

        first = following(None)
        if first is not None:
            job = self.guest.tasks.start(*first)
            job.following = following
            self.guest.tasks.finish(job)
            if job.died:
                raise TaskDied("the task was killed in the middle of its system calls")
        if isinstance(ended[0], KoboxError):
            raise ended[0]
        return ended[0]

    def checked(self, what: str, name: str, *arguments: int) -> int:
        """As ``call``; an error becomes ``Errno`` with ``what`` in its text."""
        result = self.call(name, *arguments)
        number = errno_of(result & (1 << 64) - 1)
        if number:
            raise Errno(number, what)
        return result
