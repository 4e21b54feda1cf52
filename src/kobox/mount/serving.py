"""The life of one mounted image: kernel, disk, file system, folder, and back in the other order.

What is left behind is an image as an unmount leaves it; when this process is killed, one as a power cut leaves it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from errno import EACCES, ENODEV, EROFS
from typing import TYPE_CHECKING, Any

from kobox import fuse
from kobox.errors import Errno, KoboxError, UsageError
from kobox.mount import disk as disks
from kobox.mount.calls import GuestCalls
from kobox.mount.options import MS_RDONLY, MountPlan
from kobox.mount.probe import READ_ONLY, names_are_exact, probe
from kobox.mount.tree import GuestTree

if TYPE_CHECKING:
    from kobox.box import Kernel
    from kobox.kernel.log import LogRecord

_FOLDER = "/mnt-kobox"
"""In the guest."""
_SYNC_SECONDS = 2.0
"""After a change, until it is on the disk at the latest (beside what fsync asks for); the kernel's own timers stand
still while nobody asks for anything."""
_FOREVER = 1000.0 * 3600
"""Seconds for which the host may keep what it knows: nobody else changes a mounted image."""
_PATIENCE = 3600.0
"""Seconds of processor time after which a system call counts as hung: a large image may well be checked for minutes."""
_WARNING = 4


@dataclass(frozen=True, slots=True)
class MountedImage:
    """What ``kobox mount`` tells. ``partition`` 0: the whole image."""

    image: str
    folder: str
    device: str
    type: str
    read_only: bool
    release: str
    pid: int

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class _Guest:
    """The file system, mounted in the guest."""

    kernel: Kernel
    device: str
    kind: str
    exact_names: bool


def serve(
    plan: MountPlan,
    ready: Callable[[MountedImage], None],
    say: Callable[[str], None],
    progress: Callable[[str], None] = lambda text: None,
) -> None:
    """Mount, call ``ready``, and serve until the folder is unmounted. ``say`` gets lines for people: what the kernel
    warns of. ``KoboxError`` where it cannot be mounted, and where not everything could be written at the end."""
    read_only = plan.read_only or "ro" in plan.options or plan.kind in READ_ONLY
    with ExitStack() as stack:
        lock = disks.ImageLock(plan.image, read_only)
        stack.callback(lock.release)
        guest = stack.enter_context(_mounted_in_guest(plan, read_only, progress))
        new_lines = guest.kernel.follow_log()
        tree = GuestTree(
            GuestCalls(guest.kernel.syscalls), _FOLDER.encode(), by_caller="default_permissions" in plan.host_words
        )
        stack.callback(tree.close)
        mounted = stack.enter_context(fuse.mount(plan.folder, _host_options(plan, tree.read_only)))
        server = _Server(tree, mounted, guest.exact_names, lambda: _tell_warnings(new_lines(True), say), say)
        about = MountedImage(
            plan.image, mounted.folder, guest.device, guest.kind, tree.read_only, guest.kernel.release, os.getpid()
        )
        server.run(lambda: ready(about))
        server.tell()


@contextmanager
def _mounted_in_guest(plan: MountPlan, read_only: bool, progress: Callable[[str], None]) -> Iterator[_Guest]:
    from kobox.box import boot

    with ExitStack() as stack:
        kernel = boot(plan.release, comm="kobox-mount", check_memory=False, progress=progress)
        stack.callback(kernel.close)
        kernel.guest.tasks.real_limit = _PATIENCE
        disk = stack.enter_context(disks.attach(kernel, plan.image, read_only, plan.offset))
        device, start = disks.choose(kernel, disk, plan.image, plan.offset, plan.partition)
        kind = plan.kind or _kind_of(plan.image, start)
        progress(f"mounting {kind}")
        kernel.files.mkdir(_FOLDER)
        _mount(kernel, plan, device, kind, read_only)
        try:
            yield _Guest(kernel, device, kind, names_are_exact(plan.image, start, kind))
        finally:
            if not kernel.dead:
                _unmount(kernel, plan.image)
        if kernel.dead:
            raise KoboxError(f"{plan.image}: the kernel has stopped: {kernel.dead}", hint="check the image (fsck)")


def _kind_of(path: str, start: int) -> str:
    mark = probe(path, start)
    if mark is None:
        where = f" at offset {start}" if start else ""
        raise UsageError(f"{path}: no file system that kobox knows{where}", hint="-t TYPE, --partition N or --offset N")
    if not mark.kind:
        raise UsageError(f"{path}: {mark.what}, no file system")
    return mark.kind


def _mount(kernel: Kernel, plan: MountPlan, device: str, kind: str, read_only: bool) -> None:
    """Mount it in the guest; read-only where it will have nothing else."""
    new_lines = kernel.follow_log()
    flags = plan.guest_flags | (MS_RDONLY if read_only or kind in READ_ONLY else 0)
    try:
        kernel.files.mount(device, _FOLDER, kind, flags, plan.guest_data)
    except Errno as error:
        if error.number in (EROFS, EACCES) and not flags & MS_RDONLY:
            _mount(kernel, plan, device, kind, read_only=True)
            return
        if error.number == ENODEV:
            raise UsageError(f"{plan.image}: kernel {kernel.release} has no file system {kind}") from error
        said = _words_on(new_lines(True), device.rsplit("/", 1)[1])
        why = f"{said} ({error.name})" if said else error.name
        raise KoboxError(f"{plan.image}: cannot be mounted as {kind}: {why}") from error


def _words_on(records: list[LogRecord], device: str) -> str:
    """What the kernel said of a device, on one line; else its last warning."""
    about = [record.text.strip() for record in records if device in record.text]
    return "; ".join(about or [record.text.strip() for record in records if record.level <= _WARNING][-1:])


def _unmount(kernel: Kernel, image: str) -> None:
    try:
        kernel.files.umount(_FOLDER)
    except Errno as error:
        raise KoboxError(f"{image}: not unmounted by the kernel: {error}", hint="check the image (fsck)") from error


def _host_options(plan: MountPlan, read_only: bool) -> fuse.MountOptions:
    words = plan.host_words
    return fuse.MountOptions(
        source=plan.image, read_only=read_only, permissions="default_permissions" in words,
        others="allow_other" in words, set_ids="suid" in words, devices="dev" in words, executes="noexec" not in words,
    )  # fmt: skip


def _tell_warnings(records: list[LogRecord], say: Callable[[str], None]) -> None:
    for record in records:
        if record.level <= _WARNING:
            say(record.text)


class _Server:
    """The loop of one mounted folder, what happens beside it, and how it ends."""

    def __init__(
        self,
        tree: GuestTree,
        mounted: fuse.Mounted,
        exact_names: bool,
        tell: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self._tree, self._mounted, self.tell, self._say = tree, mounted, tell, say
        # what the host knows of "a" it does not know of "A": where these are one, it may keep neither
        names = _FOREVER if exact_names else 0.0
        options = fuse.SessionOptions(names, names, _FOREVER, masks=True, truncates=True)
        self._session = fuse.Session(mounted.descriptor, tree, options)
        self._over = threading.Event()
        self._asked = 0
        self._trouble = ""

    def run(self, ready: Callable[[], None]) -> None:
        """Serve until the folder is unmounted, or a second signal wants the end."""
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        syncer = threading.Thread(target=self._keep_synced, name="kobox-sync", daemon=True)
        syncer.start()
        self._tree.on_trouble = self._on_trouble
        try:
            ready()
            self._session.run()
        finally:
            self._over.set()
            self._tree.touched.set()
            syncer.join()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _keep_synced(self) -> None:
        """In a thread: some time after a change have the serving thread put it on the disk."""
        while True:
            self._tree.touched.wait()
            if self._over.wait(_SYNC_SECONDS):
                return
            self._tree.touched.clear()
            self._session.call_soon(self._sync)

    def _sync(self) -> None:
        try:
            self._tree.sync()
        except KoboxError as error:
            self._say(f"{self._mounted.folder}: not everything is on the disk: {error}")
        self.tell()

    def _on_trouble(self, error: BaseException) -> None:
        """Once for each error: a dead kernel answers everything with the same."""
        if str(error) != self._trouble:
            self._trouble = str(error)
            self._say(f"{self._mounted.folder}: {error}")
            self.tell()

    def _on_signal(self, number: int, frame: object) -> None:
        """Unmount; programs that are in it are left alone, until asked again."""
        self._asked += 1
        threading.Thread(target=self._end, args=(self._asked > 1,), daemon=True).start()

    def _end(self, by_force: bool) -> None:
        try:
            self._mounted.unmount(lazy=by_force)
        except KoboxError as error:
            self._say(f"{error.text}; once more (Ctrl-C, SIGTERM) cuts off who uses it")
            return
        if by_force:
            self._session.stop()
