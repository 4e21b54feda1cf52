"""``/sys/module`` as a tree of its own: files need no open, and what the list of modules tells costs no guest call.

The host keeps contents, but asks each time whether they changed (``mtime``): of a module's facts this is known here; of
any other file it may have whenever the kernel has done anything. It asks for names each time as well, so that nothing
has to be taken back: a notice about a name would wait for whoever looks one up, who waits for us.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from errno import ENOSYS
from typing import TYPE_CHECKING, TypeVar

from kobox.enter.facts import Fact, Facts
from kobox.enter.tree import AT_FDCWD, GuestTree, Handle, Node, check
from kobox.errors import Errno
from kobox.fuse import Attributes, Changes, DirEntry, Entry, Opened, Request

if TYPE_CHECKING:
    from kobox.session.calling import Answer, Call, Caller

T = TypeVar("T")
ROOT = b"/sys/module"
_FOLDER, _FILE = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o444
_A_MOMENT = 0.001
"""The host makes it one of its ticks. Whoever opens a file has just looked it up: reading it then needs no question."""


class ModulesTree(GuestTree):
    """Nodes are the guest's paths, from ``/sys/module`` on."""

    def __init__(self, caller: Caller, facts: Facts, every_id: bool) -> None:
        super().__init__(caller, facts, every_id)
        self.root = ROOT
        self._attributes: dict[bytes, Attributes] = {}
        """Of files that the host holds."""
        self._listings: dict[bytes, list[DirEntry]] = {}

    def forget(self, node: Node) -> None:
        assert isinstance(node, bytes)
        self._attributes.pop(node, None)
        self._listings.pop(node, None)

    # -- what the list tells --------------------------------------------------------------------------------------

    def _known(self, path: bytes) -> Fact | None:
        """The fact that a path stands for."""
        words = path[len(ROOT) + 1 :].split(b"/")
        if len(words) != 2:
            return None
        return self._facts.files.get(words[0], {}).get(words[1])

    def _when_fresh(self, request: Request, then: Callable[[], T]) -> T:
        """``then()`` as soon as the facts hold: now, mostly. It may itself ask the guest."""
        if self._facts.fresh:
            return then()
        request.later()

        def told() -> None:
            request.deferred = False
            try:
                result = then()
            except Errno as error:
                request.fail(error.number)
                return
            if not request.deferred:
                request.deferred = True
                request.answer(result)

        self._facts.refresh(request, told)
        return None  # type: ignore[return-value]  # nobody looks at it: the answer follows

    def _told(self, path: bytes) -> Attributes | None:
        """Attributes of what the list tells: a module's folder, its holders, a fact."""
        words = path[len(ROOT) + 1 :].split(b"/")
        files = self._facts.files.get(words[0])
        if files is None or len(words) > 2:
            return None
        number = hash(path) & 0x7FFF_FFFF_FFFF_FFFF | 1
        if len(words) == 1 or words[1] == b"holders":
            turn = self._facts.holders_turn.get(words[0], 0)
            return Attributes(number, _FOLDER, nlink=2, mtime=turn, ctime=turn, valid=_A_MOMENT)
        fact = files.get(words[1])
        if fact is None:
            return None
        # the true size, not sysfs's page: the host reads no further, and keeps what it has
        return Attributes(number, _FILE, len(fact.content), mtime=fact.turn, ctime=fact.turn, valid=_A_MOMENT)

    # -- the tree -------------------------------------------------------------------------------------------------

    def lookup(self, request: Request, parent: Node, name: bytes) -> Entry[Node] | None:
        assert isinstance(parent, bytes)
        path = parent + b"/" + name

        def known() -> Entry[Node] | None:
            told = self._told(path)
            if told is not None:
                return Entry(path, told, 0.0)
            return self.status(request, path, lambda seen: self.entry_of(path, seen))

        return self._when_fresh(request, known)

    def entry_of(self, path: bytes, found: Attributes) -> Entry[Node]:
        return Entry(path, self._kept(path, found), 0.0)

    def _kept(self, path: bytes, found: Attributes) -> Attributes:
        """``found``, with a time that is new whenever the kernel has done anything."""
        now = self._caller.begun
        kept = self._attributes[path] = found._replace(mtime=now, ctime=now, valid=0.0)
        return kept

    def getattr(self, request: Request, node: Node, handle: Handle | None) -> Attributes:
        assert isinstance(node, bytes)

        def known() -> Attributes:
            told = self._told(node)
            if told is not None:
                return told
            before = self._attributes.get(node)
            if before is not None and not stat.S_ISDIR(before.mode):
                return self._kept(node, before)
            return self.status(request, node, lambda found: self._kept(node, found))

        return self._when_fresh(request, known)

    def setattr(self, request: Request, node: Node, handle: Handle | None, changes: Changes) -> Attributes:
        assert isinstance(node, bytes)
        if changes.mode is None and changes.uid is None and changes.gid is None:
            return self.getattr(request, node, None)  # a redirection's O_TRUNC: such files have no length
        self._attributes.pop(node, None)
        return super().setattr(request, node, handle, changes)

    def open(self, request: Request, node: Node, flags: int) -> Opened:
        raise Errno(ENOSYS)

    def read(self, request: Request, node: Node, handle: Handle | None, offset: int, size: int) -> bytes:
        assert isinstance(node, bytes)

        def known() -> bytes:
            fact = self._known(node)
            if fact is not None:
                return fact.content[offset : offset + size]
            return self._read(request, node, offset, size)

        return self._when_fresh(request, known)

    def _read(self, request: Request, path: bytes, offset: int, size: int) -> bytes:
        calls: list[Call] = [
            ["openat", AT_FDCWD, {"in": len(path) + 1}, os.O_RDONLY, 0],
            ["pread64", {"of": 0}, {"got": size}, size, offset],
            ["close", {"of": 0}],
        ]

        def got(answer: Answer) -> bytes:
            check(answer.results[0])
            check(answer.results[1])
            return answer.buffers[0]

        return self.ask(request, calls, path + b"\0", got)

    def write(self, request: Request, node: Node, handle: Handle | None, offset: int, data: memoryview) -> int:
        assert isinstance(node, bytes)
        calls: list[Call] = [
            ["openat", AT_FDCWD, {"in": len(node) + 1}, os.O_WRONLY, 0],
            ["pwrite64", {"of": 0}, {"in": len(data)}, len(data), offset],
            ["close", {"of": 0}],
        ]

        def written(answer: Answer) -> int:
            check(answer.results[0])
            return check(answer.results[1])

        return self.ask(request, calls, node + b"\0" + bytes(data), written)

    def opendir(self, request: Request, node: Node, flags: int) -> Opened:
        raise Errno(ENOSYS)

    def readdir(self, request: Request, node: Node, handle: Handle | None, offset: int) -> Iterable[DirEntry]:
        """The host keeps listings, too, as long as the directory's time is the same."""
        assert isinstance(node, bytes)
        if offset:
            return self._listings.get(node, [])[offset:]

        def listed(found: list[DirEntry]) -> Iterable[DirEntry]:
            self._listings[node] = found
            return found

        def known() -> Iterable[DirEntry]:
            words = node[len(ROOT) + 1 :].split(b"/")
            holders = self._facts.holders.get(words[0]) if words[1:] == [b"holders"] else None
            if holders is None:
                return self.entries_of(request, node, listed)
            return listed([DirEntry(name, at, stat.S_IFLNK, at) for at, name in enumerate(holders, 1)])

        return self._when_fresh(request, known)
