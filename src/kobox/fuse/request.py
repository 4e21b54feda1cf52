"""One request of the host, from the moment it is read to its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kobox.fuse.wire import IN_HEADER, Opcode

if TYPE_CHECKING:
    from kobox.fuse.buffers import Buffer


class Request:
    """``uid``, ``gid``, ``pid``: who asks. ``body`` is what follows the header; ``data`` the bytes of a WRITE.

    ``interrupted`` is set by the thread that reads requests, at any moment.
    """

    __slots__ = (
        "_answer", "_fail", "body", "buffer", "data", "deferred", "done", "gid", "interrupted", "nodeid", "opcode",
        "pid", "state", "uid", "umask", "unique",
    )  # fmt: skip

    def __init__(
        self,
        head: bytearray,
        buffer: Buffer | None,
        answer: Callable[[Request, Any], None],
        fail: Callable[[Request, int], None],
    ) -> None:
        _, self.opcode, self.unique, self.nodeid, self.uid, self.gid, self.pid, _, _ = IN_HEADER.unpack_from(head)
        self.buffer = buffer
        self._answer, self._fail = answer, fail
        self.body: bytes = b""
        self.data: memoryview | None = None
        self.interrupted = self.deferred = self.done = False
        self.umask = 0
        """Of a request that makes something."""
        self.state: Any = None
        """The tree's own, from ``later`` on."""

    @property
    def name(self) -> str:
        """``lookup``, ``read``; the number of one that is not known."""
        return Opcode(self.opcode).name.lower() if self.opcode in Opcode._value2member_map_ else str(self.opcode)

    def later(self) -> None:
        """The method that serves it will not answer; ``answer`` or ``fail`` follow, in the session's thread."""
        self.deferred = True

    def answer(self, result: Any) -> None:
        """Answer a deferred request with what its method would have returned. Once; a second time is nothing."""
        self._answer(self, result)

    def fail(self, number: int) -> None:
        """Answer a deferred request with a (positive) errno."""
        self._fail(self, number)
