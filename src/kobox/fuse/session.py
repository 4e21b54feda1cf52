"""The loop that serves one mounted tree, and the notices that go the other way.

Two threads: one reads requests and nothing else, so that an interruption is seen while another request is served; the
one that called ``run`` serves them, one after the other in the order in which they came. Whatever else that thread
should do meanwhile is given to it by ``call_soon``.
"""

from __future__ import annotations

import os
import queue
import select
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from errno import EAGAIN, ECONNABORTED, EINTR, EINVAL, EIO, ENODEV, ENOENT, ENOSYS, ENOTCONN
from typing import Any, Generic, TypeVar

from kobox.errors import Errno, KoboxError
from kobox.fuse import wire
from kobox.fuse.buffers import HEAD, Buffer, Buffers
from kobox.fuse.filesystem import Data, FileSystem
from kobox.fuse.operations import OPERATIONS
from kobox.fuse.replies import Reply
from kobox.fuse.request import Request
from kobox.fuse.tables import Handles, Nodes
from kobox.fuse.wire import Init, Notice, Opcode

N = TypeVar("N")
H = TypeVar("H")

_ALWAYS = (
    Init.ASYNC_READ | Init.BIG_WRITES | Init.HAS_IOCTL_DIR | Init.DO_READDIRPLUS | Init.READDIRPLUS_AUTO
    | Init.ASYNC_DIO | Init.NO_OPEN_SUPPORT | Init.NO_OPENDIR_SUPPORT | Init.PARALLEL_DIROPS | Init.MAX_PAGES
    | Init.DONT_MASK | Init.INIT_EXT | Init.SETXATTR_EXT
)  # fmt: skip
_BACKGROUND = 64
_GONE = frozenset({ENODEV, ECONNABORTED, ENOTCONN})


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What the host is told of the tree. Seconds for which it may keep a name, its absence, attributes; 0: not at all.

    ``writeback``: writes gather in the host's page cache, and sizes and times of files are the host's. ``masks``: the
    tree applies ``Request.umask`` itself, as default ACLs want it (else ``mode`` has lost those bits). ``locks``: it
    has ``getlk`` and ``setlk``; else the host keeps locks. ``truncates``: ``open`` heeds O_TRUNC. ``abilities``:
    further bits of ``wire.Init``.
    """

    entry_valid: float = 1.0
    absence_valid: float = 0.0
    attributes_valid: float = 1.0
    max_write: int = 1 << 20
    max_readahead: int = 1 << 20
    writeback: bool = False
    masks: bool = False
    locks: bool = False
    truncates: bool = False
    abilities: int = 0

    @property
    def wanted(self) -> Init:
        """What is asked for, if the host has it."""
        wanted = _ALWAYS | Init(self.abilities)
        for on, flag in (
            (self.writeback, Init.WRITEBACK_CACHE), (self.truncates, Init.ATOMIC_O_TRUNC),
            (self.locks, Init.POSIX_LOCKS | Init.FLOCK_LOCKS),
        ):  # fmt: skip
            wanted |= flag if on else Init(0)
        return wanted


class Session(Generic[N, H]):
    """One connection. ``device`` is the descriptor that ``mount`` gave; whoever made it closes it."""

    def __init__(self, device: int, file_system: FileSystem[N, H], options: SessionOptions | None = None) -> None:
        self.device, self.file_system = device, file_system
        self.options = options or SessionOptions()
        self.nodes: Nodes[N] = Nodes(file_system.root)
        self.handles = Handles()
        self.shared = Init(0)
        """Abilities that both sides have."""
        self.served = 0
        self._queue: queue.SimpleQueue[Request | Callable[[], None] | None] = queue.SimpleQueue()
        self._buffers = Buffers(self.options.max_write)
        self._waiting: dict[int, Request] = {}
        """By unique: requests that were read and not answered."""
        self._at_work: Request | None = None
        self._lock = threading.Lock()
        self._stopped = False
        self._stop_event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Readable once reading shall end: closing the device would not wake who waits in a read of it."""
        weakref.finalize(self, os.close, self._stop_event)
        self._poller = select.poll()
        self._poller.register(device, select.POLLIN)
        self._poller.register(self._stop_event, select.POLLIN)

    # -- the loop -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the tree is unmounted or ``stop`` is called. Nobody reads the device when it returns."""
        os.set_blocking(self.device, False)
        if not self._negotiate():
            self.file_system.end()
            return
        reader = threading.Thread(target=self._read_requests, name="kobox-fuse", daemon=True)
        reader.start()
        try:
            self.file_system.start(self)
            while (work := self._queue.get()) is not None:
                if isinstance(work, Request):
                    self._serve(work)
                else:
                    work()
                if self._stopped:
                    break
        finally:
            os.eventfd_write(self._stop_event, 1)
            reader.join()
            for handle in self.handles.clear():
                self.file_system.abandoned(handle)
            for node in self.nodes.clear():
                self.file_system.forget(node)
            self.file_system.end()

    def begin(self) -> bool:
        """For a loop of the caller's own, instead of ``run``: wait for the host's first request and agree with it.
        False: it was unmounted before. From then on ``take`` serves what comes, and ``device`` does not block."""
        if not self._negotiate():
            self.file_system.end()
            return False
        os.set_blocking(self.device, False)
        self.file_system.start(self)
        return True

    def take(self) -> bool:
        """Serve all requests that are there. False once there will be none. A method that wants to be interrupted
        answers later: nothing is read while it works."""
        while True:
            buffer = self._buffers.take()
            try:
                length = os.readv(self.device, buffer.parts)
            except OSError as error:
                self._buffers.give(buffer)
                if error.errno in (EINTR, ENOENT):
                    continue
                if error.errno == EAGAIN or error.errno in _GONE:
                    return error.errno == EAGAIN
                raise
            request = self._accept(buffer, length)
            if request is None or request.buffer is None:
                self._buffers.give(buffer)
            if request is not None:
                self._serve(request)

    def stop(self) -> None:
        """Have ``run`` return after what it serves now; whoever waits for an answer gets it when the descriptor is
        closed. Any thread, or a signal's handler."""
        self._stopped = True
        os.eventfd_write(self._stop_event, 1)
        self._queue.put(None)

    def call_soon(self, function: Callable[[], None]) -> None:
        """Have the serving thread call it, behind the requests that wait. Any thread."""
        self._queue.put(function)

    @property
    def idle(self) -> bool:
        """Whether no request waits to be served. Any thread."""
        return self._queue.empty()

    # -- notices ------------------------------------------------------------------------------------------------

    def wake(self, waiter: int) -> None:
        """There is more to see for whoever polls: ``waiter`` is what ``FileSystem.poll`` was given."""
        self._notify(Notice.POLL, wire.NOTICE_POLL.pack(waiter))

    def forget_content(self, node: N, offset: int = 0, length: int = 0) -> None:
        """Have the host forget what it knows of a file: its attributes, and its bytes from ``offset`` on (``length`` 0:
        to the end; a negative ``offset``: attributes only)."""
        number = self.nodes.number(node)
        if number is not None:
            self._notify(Notice.INVAL_INODE, wire.NOTICE_INVAL_INODE.pack(number, offset, length))

    def forget_name(self, parent: N, name: bytes) -> None:
        """Have the host look a name up anew. It waits for the folder's lock: never from a method of the tree."""
        number = self.nodes.number(parent)
        if number is not None:
            self._notify(Notice.INVAL_ENTRY, wire.NOTICE_INVAL_ENTRY.pack(number, len(name), 0), name + b"\0")

    def _notify(self, what: Notice, *parts: bytes) -> None:
        length = wire.OUT_HEADER.size + sum(map(len, parts))
        self._write([wire.OUT_HEADER.pack(length, what, 0), *parts])

    # -- reading ------------------------------------------------------------------------------------------------

    def _negotiate(self) -> bool:
        """Answer INIT, and refuse versions that do not fit. False: unmounted before it came."""
        while True:
            buffer = self._buffers.take()
            if self._fill(buffer) < 0:
                return False
            request = Request(buffer.head, buffer, self._answer, self._fail)
            offered = bytes(buffer.head[wire.IN_HEADER.size :]) + bytes(buffer.view[:64])
            major, minor, readahead, flags = wire.INIT_IN.unpack_from(offered)
            if request.opcode != Opcode.INIT:
                self._reply(request, EIO)
                continue
            if major < wire.MAJOR or minor < 23:
                self._reply(request, EINVAL)
                raise Errno(EINVAL, f"this host speaks FUSE {major}.{minor}, too old for kobox")
            if major > wire.MAJOR:  # it asks again, in terms of ours
                self._reply(request, 0, (wire.INIT_OUT.pack(wire.MAJOR, wire.MINOR, *[0] * 9),))
                continue
            if flags & Init.INIT_EXT:
                flags |= wire.INIT_IN_EXT.unpack_from(offered, wire.INIT_IN.size)[0] << 32
            self.shared = self.options.wanted & Init(flags)
            pages = self.options.max_write // wire.PAGE if self.shared & Init.MAX_PAGES else 0
            self._reply(
                request, 0,
                (wire.INIT_OUT.pack(
                    wire.MAJOR, min(minor, wire.MINOR), min(readahead, self.options.max_readahead),
                    self.shared & 0xFFFF_FFFF, _BACKGROUND, _BACKGROUND * 3 // 4, self.options.max_write, 1, pages, 0,
                    self.shared >> 32,
                ),),
            )  # fmt: skip
            return True

    def _fill(self, buffer: Buffer) -> int:
        """Read one request; its length, or -1 when there will be none."""
        while not self._stopped:
            try:
                return os.readv(self.device, buffer.parts)
            except OSError as error:
                if error.errno in _GONE:
                    return -1
                if error.errno == EAGAIN:
                    if any(descriptor == self._stop_event for descriptor, _ in self._poller.poll()):
                        return -1
                elif error.errno not in (EINTR, ENOENT):  # ENOENT: it was taken back
                    raise
        return -1

    def _read_requests(self) -> None:
        """The reading thread."""
        buffer = self._buffers.take()
        while (length := self._fill(buffer)) >= 0:
            request = self._accept(buffer, length)
            if request is None:
                continue
            if request.buffer is not None:
                buffer = self._buffers.take()
            self._queue.put(request)
        self._queue.put(None)

    def _accept(self, buffer: Buffer, length: int) -> Request | None:
        """A request that was read; it keeps the buffer if its data are there. None: it was about another one."""
        request = Request(buffer.head, None, self._answer, self._fail)
        if request.opcode == Opcode.INTERRUPT:
            self._interrupt(*wire.INTERRUPT_IN.unpack_from(buffer.head, wire.IN_HEADER.size))
            return None
        request.body = bytes(buffer.head[wire.IN_HEADER.size : length])
        if request.opcode == Opcode.WRITE:
            request.buffer, request.data = buffer, buffer.view[: length - HEAD]
        elif length > HEAD:
            request.body += bytes(buffer.view[: length - HEAD])
        if request.opcode not in (Opcode.FORGET, Opcode.BATCH_FORGET):
            self._waiting[request.unique] = request
        return request

    def _interrupt(self, unique: int) -> None:
        request = self._waiting.get(unique)
        if request is None:
            return
        request.interrupted = True
        with self._lock:  # so that it is that request which is at work, and no other yet
            if request is self._at_work or request.deferred:
                self.file_system.interrupted(request)

    # -- serving ------------------------------------------------------------------------------------------------

    def _serve(self, request: Request) -> None:
        if request.opcode == Opcode.FORGET:
            self._forget(request.nodeid, *wire.FORGET_IN.unpack_from(request.body))
            return
        if request.opcode == Opcode.BATCH_FORGET:
            count, _ = wire.BATCH_FORGET_IN.unpack_from(request.body)
            start = wire.BATCH_FORGET_IN.size
            for at in range(start, start + count * wire.FORGET_ONE.size, wire.FORGET_ONE.size):
                self._forget(*wire.FORGET_ONE.unpack_from(request.body, at))
            return
        self.served += 1
        operation = OPERATIONS.get(request.opcode)
        if operation is None:
            self._reply(request, 0 if request.opcode == Opcode.DESTROY else ENOSYS)
            return
        if request.interrupted and request.opcode not in _ENDINGS:
            self._reply(request, EINTR)
            return
        with self._lock:
            self._at_work = request
        try:
            result = operation.serve(self, request)
            with self._lock:
                self._at_work = None
            if not request.deferred:
                self._answer(request, result)
        except BaseException as error:
            with self._lock:
                self._at_work = None
            self._reply(request, self._errno_of(request, error))
            if not isinstance(error, (KoboxError, OSError)):
                raise

    def _errno_of(self, request: Request, error: BaseException) -> int:
        if isinstance(error, Errno):
            return error.number
        if isinstance(error, OSError) and error.errno:
            return error.errno
        self.file_system.failed(request, error)
        return EIO

    def masked(self, request: Request, mode: int, umask: int) -> int:
        """A mode as the tree gets it."""
        request.umask = umask
        return mode if self.options.masks else mode & ~umask

    def _forget(self, number: int, count: int) -> None:
        node = self.nodes.forget(number, count)
        if node is not None:
            self.file_system.forget(node)

    def _answer(self, request: Request, result: Any) -> None:
        try:
            reply = OPERATIONS[request.opcode].reply(self, request, result)
        except (Errno, OSError) as error:
            self._reply(request, self._errno_of(request, error))
        else:
            self._reply(request, 0, reply)

    def _fail(self, request: Request, number: int) -> None:
        self._reply(request, number)

    def _reply(self, request: Request, number: int, parts: Reply = ()) -> None:
        if request.done:
            return
        request.done = True
        self._waiting.pop(request.unique, None)
        length = wire.OUT_HEADER.size + sum(map(len, parts))
        self._write([wire.OUT_HEADER.pack(length, -number, request.unique), *parts])
        if request.buffer is not None:
            request.data = None
            self._buffers.give(request.buffer)
            request.buffer = None

    def _write(self, parts: list[Data]) -> None:
        """To the host. It does not mind an answer that nobody waits for any more, or a notice of what it does not
        hold."""
        try:
            os.writev(self.device, parts)
        except OSError as error:
            if error.errno not in _GONE and error.errno != ENOENT:
                raise


_ENDINGS = frozenset({Opcode.FLUSH, Opcode.RELEASE, Opcode.RELEASEDIR, Opcode.DESTROY})
"""What is carried out even if nobody waits for it."""
