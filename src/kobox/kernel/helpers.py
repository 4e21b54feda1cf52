"""Programs that the kernel starts by itself (``kernel/umh.c``): modprobe, and whatever else has a path in a sysctl.

There is no user space, so ``kernel_execve`` asks here (``kapi/binfmts.py``). A program is known by its path or by the
last part of it; one that is not known is not there, as on a system that did not install it: ENOENT.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

from kobox.errors import GuestError
from kobox.kernel.askers import Askers
from kobox.kernel.guest import Guest
from kobox.kernel.programs import Program, Programs
from kobox.kernel.records import Asker
from kobox.machine.machine import RAX

_ENOENT, _EAGAIN, _E2BIG = 2, 11, 7
_MOST_WORDS, _LONGEST_WORD = 256, 4096


@dataclass(slots=True, eq=False)
class HelperCall:
    """A program that the kernel started. ``program`` is None where there was none (the kernel got ENOENT)."""

    path: str
    argv: tuple[str, ...]
    environment: tuple[str, ...]
    asker: Asker | None = None
    """Who asked for a module, where the program is to load one."""
    program: Program | None = None

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs, when its task was killed, or where no such program is known."""
        return self.program.status if self.program is not None else None


Answer = Callable[[HelperCall], "Generator[tuple[int, ...], int, int]"]
"""What a program does, as ``Programs`` runs it."""


class Helpers:
    """The helper programs of one guest. ``calls`` grows by one with every program that the kernel starts."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self.programs = Programs(guest)
        self.askers = Askers(guest)
        self.calls: list[HelperCall] = []
        self._answers: dict[str, Answer] = {"true": _exits(0), "false": _exits(1)}

    def serve(self, name: str, answer: Answer | int) -> None:
        """Put a program in place: a path, or a file name wherever it lies. A number is what it exits with at once."""
        self._answers[name] = _exits(answer) if isinstance(answer, int) else answer

    def forget(self, mark: int) -> None:
        """The guest was reset to when there were ``mark`` calls."""
        self.programs.forget()
        self.askers.forget()
        del self.calls[mark:]

    def execute(self, path: int, argv: int, envp: int) -> int:
        """``kernel_execve`` of the present task: 0 or a negative errno. A program begins when the caller is done."""
        guest = self._guest
        if not guest.tasks.state.server:
            return -_ENOENT  # still booting: nothing is mounted that could hold a program
        try:
            call = HelperCall(self._text(path), self._words(argv), self._words(envp))
        except GuestError:
            return -_E2BIG
        call.asker = self.askers.take(call.argv[-1]) if call.argv else None
        self.calls.append(call)
        answer = self._answers.get(call.path) or self._answers.get(call.path.rpartition("/")[2])
        if answer is None:
            return -_ENOENT
        program = Program(call.path.rpartition("/")[2], answer(call))
        guest.machine.cpu.write(RAX, 0)
        if not self.programs.begin(program):
            return -_EAGAIN
        call.program = program
        return 0

    def _text(self, address: int) -> str:
        return self._guest.read_cstr(address, _LONGEST_WORD).decode("utf-8", "surrogateescape")

    def _words(self, array: int) -> tuple[str, ...]:
        """A NULL-terminated array of strings; a NULL array is empty."""
        words: list[str] = []
        while array and (word := self._guest.read_uint(array + 8 * len(words))):
            if len(words) == _MOST_WORDS:
                raise GuestError("too many words for a program")
            words.append(self._text(word))
        return tuple(words)


def _exits(status: int) -> Answer:
    def steps(call: HelperCall) -> Generator[tuple[int, ...], int, int]:
        yield from ()
        return status

    return steps
