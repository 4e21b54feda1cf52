"""What ``/proc/modules`` says, kept as long as nothing has happened in the kernel: sizes, counts, holders of modules.

One guest call answers the few hundred small files that lsmod reads. Whether something has happened is read from memory
that the session's server shares (``Caller.begun``), so that nothing old is ever told.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EIO
from typing import TYPE_CHECKING, NamedTuple

from kobox.errors import Errno
from kobox.session.calling import Answer, Call, Caller

if TYPE_CHECKING:
    from kobox.fuse import Request

_PATH = b"/proc/modules\0"
_MOST = 1 << 20
_AT_FDCWD = -100


class Fact(NamedTuple):
    """A file's content, and when it changed last: a number of ``Facts.turn``."""

    content: bytes
    turn: int


class Facts:
    """``turn`` counts how often something was seen to have changed."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self.text = b""
        self.turn = 0
        self._begun = -1
        self.files: dict[bytes, dict[bytes, Fact]] = {}
        """By module: the files that the list tells."""
        self.holders: dict[bytes, tuple[bytes, ...]] = {}
        self.holders_turn: dict[bytes, int] = {}
        self._waiting: list[tuple[Request, Callable[[], None]]] = []

    @property
    def fresh(self) -> bool:
        """Whether what is here still holds."""
        return self._begun == self._caller.begun

    def refresh(self, request: Request, then: Callable[[], None]) -> None:
        """Ask the kernel, and call ``then`` when it has answered; ``request`` fails if it does not."""
        self._waiting.append((request, then))
        if len(self._waiting) > 1:
            return
        calls: list[Call] = [
            ["openat", _AT_FDCWD, {"in": len(_PATH)}, 0, 0],
            ["read", {"of": 0}, {"got": _MOST}, _MOST],
            ["read", {"of": 0}, {"got": _MOST}, _MOST],
            ["close", {"of": 0}],
        ]
        self._caller.ask(calls, _PATH, self._told)

    def _told(self, answer: Answer) -> None:
        waiting, self._waiting = self._waiting, []
        failed = next((-result for result in answer.results[:-1] if result < 0), 0)
        if answer.error is not None or failed:
            number = answer.error.number if isinstance(answer.error, Errno) else failed or EIO
            for request, _ in waiting:
                request.fail(number)
            return
        self._take(b"".join(answer.buffers))
        self._begun = answer.begun
        for _, then in waiting:
            then()

    def _take(self, text: bytes) -> None:
        if text == self.text and self.turn:
            return
        self.text = text
        self.turn += 1
        files: dict[bytes, dict[bytes, Fact]] = {}
        holders: dict[bytes, tuple[bytes, ...]] = {}
        for line in text.splitlines():
            name, size, count, users, state, *_ = line.split(b" ")
            if state != b"Live":
                continue  # what comes or goes is asked of the kernel itself
            known = files[name] = {}
            for file, content in ((b"coresize", size), (b"refcnt", count), (b"initstate", b"live")):
                known[file] = self._fact(name, file, content + b"\n")
            found = tuple(user for user in users.split(b",") if user and user not in (b"-", b"[permanent]"))
            if self.holders.get(name) != found:
                self.holders_turn[name] = self.turn
            holders[name] = found
        self.files, self.holders = files, holders

    def _fact(self, name: bytes, file: bytes, content: bytes) -> Fact:
        before = self.files.get(name, {}).get(file)
        return before if before is not None and before.content == content else Fact(content, self.turn)
