"""What becomes of each system call that was caught: a table from its number to a method.

Arguments are read from the caller's memory as the kernel would; checks that need the host (is this file readable?) are
made here, all others by the guest's kernel.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from errno import EBADF, EFAULT, EINTR, EINVAL, EIO, EPERM, ETXTBSY
from typing import TYPE_CHECKING

from kobox.enter import paths, processes
from kobox.enter.seccomp import Caught, Listener
from kobox.enter.tree import AT_FDCWD
from kobox.errors import Errno
from kobox.session.calling import Answer, Call, Caller

if TYPE_CHECKING:
    from kobox.enter.keeper import Loop

NUMBERS = {
    "open": 2, "uname": 63, "sysinfo": 99, "syslog": 103, "mknod": 133, "mount": 165, "init_module": 175,
    "delete_module": 176, "openat": 257, "mknodat": 259, "finit_module": 313, "openat2": 437,
}  # fmt: skip
"""Of x86-64: arch/x86/entry/syscalls/syscall_64.tbl."""
_NAME_BYTES = 56
"""As include/linux/moduleparam.h has it, the NUL included."""
_MOST_PARAMETERS = 1 << 20
_LARGEST_FILE = 256 << 20
_READ, _READ_ALL, _READ_CLEAR, _SIZE_BUFFER = 2, 3, 4, 10
_LARGEST_LOG = 8 << 20
_UTS_FIELD = 65
_UTS_BYTES = 6 * _UTS_FIELD
_SYSINFO_BYTES = 112
_NO_OPENS = os.O_DIRECTORY | os.O_PATH
_HOW = struct.Struct("=QQQ")
_KERNEL_TREES = (b"/proc", b"/sys", b"/dev")


class Answers:
    """``devices``: an O_PATH descriptor of the folder with the devices' twins; ``names``: the guest's utsname."""

    def __init__(self, loop: Loop, caller: Caller, listener: Listener, devices: int, names: bytes) -> None:
        self._loop, self._caller, self._listener = loop, caller, listener
        self._devices, self._names = devices, names
        methods: dict[str, Callable[[Caught], None]] = {
            "open": self._open, "openat": self._openat, "openat2": self._openat2, "uname": self._uname,
            "syslog": self._syslog, "mknod": self._mknod, "mknodat": self._mknodat, "mount": self._mount,
            "init_module": self._init_module, "finit_module": self._finit_module, "sysinfo": self._sysinfo,
            "delete_module": self._delete_module,
        }  # fmt: skip
        self._methods = {NUMBERS[name]: method for name, method in methods.items()}

    def serve(self, caught: Caught) -> None:
        """Answer now or later."""
        self._methods[caught.number](caught)

    # -- modules --------------------------------------------------------------------------------------------------

    def _init_module(self, caught: Caught) -> None:
        address, length, parameters, *_ = caught.arguments
        if not self._may(caught, processes.CAP_SYS_MODULE):
            return
        data = processes.read_memory(caught.pid, address, min(length, _LARGEST_FILE))
        name = processes.name_of(caught.pid)
        self._ask(
            caught,
            lambda then: self._caller.init(data, length, self._parameters(caught.pid, parameters), then, name),
        )

    def _finit_module(self, caught: Caught) -> None:
        descriptor, parameters, flags, *_ = caught.arguments
        if not self._may(caught, processes.CAP_SYS_MODULE):
            return
        data = _module_file(caught.pid, _signed(descriptor))
        text, name = self._parameters(caught.pid, parameters), processes.name_of(caught.pid)
        self._ask(caught, lambda then: self._caller.load(data, text, flags & 0xFFFF_FFFF, then, name))

    def _delete_module(self, caught: Caught) -> None:
        address, flags, *_ = caught.arguments
        if not self._may(caught, processes.CAP_SYS_MODULE):
            return
        raw = processes.read_text(caught.pid, address, _NAME_BYTES - 1)
        text = None if raw is None else raw.decode("utf-8", "surrogateescape")
        name = processes.name_of(caught.pid)
        self._ask(caught, lambda then: self._caller.delete(text, flags & 0xFFFF_FFFF, then, name))

    def _parameters(self, pid: int, address: int) -> str | None:
        raw = processes.read_text(pid, address, _MOST_PARAMETERS)
        return None if raw is None else raw.decode("utf-8", "surrogateescape")

    def _may(self, caught: Caught, capability: int) -> bool:
        if processes.may(caught.pid, capability):
            return True
        self._listener.answer(caught, -EPERM)
        return False

    # -- the log, names, numbers ----------------------------------------------------------------------------------

    def _syslog(self, caught: Caught) -> None:
        action, address, length, *_ = caught.arguments
        action, length = _signed(action), _signed(length)
        if action in (_READ, _READ_ALL, _READ_CLEAR) and address and length > 0:
            room = min(length, _LARGEST_LOG)

            def copied(answer: Answer) -> int:
                whole = processes.write_memory(caught.pid, address, answer.buffers[0])
                return answer.results[0] if whole else -EFAULT

            self._call(caught, ["syslog", action, {"got": room}, room], b"", copied)
        else:
            self._call(caught, ["syslog", action, address, length])

    def _uname(self, caught: Caught) -> None:
        """The kernel's, but for the host's own name."""
        host = os.uname().nodename.encode()[: _UTS_FIELD - 1].ljust(_UTS_FIELD, b"\0")
        names = self._names[:_UTS_FIELD] + host + self._names[2 * _UTS_FIELD :]
        written = processes.write_memory(caught.pid, caught.arguments[0], names)
        self._listener.answer(caught, 0 if written else -EFAULT)

    def _sysinfo(self, caught: Caught) -> None:
        def copied(answer: Answer) -> int:
            whole = processes.write_memory(caught.pid, caught.arguments[0], answer.buffers[0])
            return answer.results[0] if whole else -EFAULT

        self._call(caught, ["sysinfo", {"out": _SYSINFO_BYTES}], b"", copied)

    # -- files ----------------------------------------------------------------------------------------------------

    def _open(self, caught: Caught) -> None:
        path, flags, *_ = caught.arguments
        self._open_at(caught, AT_FDCWD, path, flags)

    def _openat(self, caught: Caught) -> None:
        folder, path, flags, *_ = caught.arguments
        self._open_at(caught, _signed(folder), path, flags)

    def _openat2(self, caught: Caught) -> None:
        folder, path, how, *_ = caught.arguments
        raw = processes.read_memory(caught.pid, how, _HOW.size)
        flags = _HOW.unpack(raw)[0] if len(raw) == _HOW.size else os.O_PATH
        self._open_at(caught, _signed(folder), path, flags)

    def _open_at(self, caught: Caught, folder: int, address: int, flags: int) -> None:
        """Opening a device of the kernel; everything else is the host's (and the trees') business."""
        path = None if flags & _NO_OPENS else self._path(caught.pid, folder, address)
        if path is None or not path.startswith(b"/dev/") or paths.is_host_device(path):
            self._listener.go_on(caught)
            return
        self._find_device(caught, path, flags)

    def _path(self, pid: int, folder: int, address: int) -> bytes | None:
        """Absolute, without ``.`` and ``..``; None where it is none that could be a device's."""
        text = processes.read_text(pid, address)
        if not text:
            return None
        if not text.startswith(b"/"):
            base = processes.folder_of(pid, folder if folder >= 0 else -1)
            if base is None or not base.startswith(b"/dev"):
                return None
            text = base + b"/" + text
        return os.path.normpath(text) if b"/." in text or b"//" in text else text

    def _find_device(self, caught: Caught, path: bytes, flags: int) -> None:
        statx: Call = ["statx", AT_FDCWD, {"in": len(path) + 1}, 0, 0x7FF, {"out": 256}]

        def found(answer: Answer) -> None:
            mode = struct.unpack_from("=H", answer.buffers[0], 28)[0] if answer.results[:1] == (0,) else 0
            if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                self._loop.in_thread(lambda: self._open_twin(caught, path, flags))
            else:
                self._listener.go_on(caught)

        self._caller.ask([statx], path + b"\0", found)

    def _open_twin(self, caught: Caught, path: bytes, flags: int) -> Callable[[], None]:
        """In a thread: opening waits for this process's own tree."""
        kept = flags & ~(os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_NOCTTY) | os.O_CLOEXEC
        try:
            opened = os.open(paths.twin_name(path), kept, dir_fd=self._devices)
        except OSError as error:
            number = error.errno or EIO
            return lambda: self._listener.answer(caught, -number)

        try:
            self._listener.give(caught, opened, bool(flags & os.O_CLOEXEC))
        finally:
            os.close(opened)  # which the tree may be asked about, too
        return lambda: None

    def _mknod(self, caught: Caught) -> None:
        path, mode, device, *_ = caught.arguments
        self._make_node(caught, AT_FDCWD, path, mode, device)

    def _mknodat(self, caught: Caught) -> None:
        folder, path, mode, device, *_ = caught.arguments
        self._make_node(caught, _signed(folder), path, mode, device)

    def _make_node(self, caught: Caught, folder: int, address: int, mode: int, device: int) -> None:
        """Device nodes of the kernel, in its own ``/dev``."""
        path = self._path(caught.pid, folder, address)
        wanted = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
        if not wanted or path is None or not path.startswith(b"/dev/") or paths.is_host_device(path):
            self._listener.go_on(caught)
            return
        self._call(caught, ["mknodat", AT_FDCWD, {"in": len(path) + 1}, mode & 0xFFFF, device], path + b"\0")

    def _mount(self, caught: Caught) -> None:
        """On the kernel's trees it is the kernel that mounts: debugfs, tracefs, configfs. Elsewhere the host does."""
        source, target, kind, flags, data, *_ = caught.arguments
        path = processes.read_text(caught.pid, target)
        if path is None or not path.startswith(_KERNEL_TREES):
            self._listener.go_on(caught)
            return
        texts = [processes.read_text(caught.pid, one) if one else b"" for one in (source, kind, data)]
        if None in texts:
            self._listener.answer(caught, -EFAULT)
            return
        source_text, kind_text, data_text = (text or b"" for text in texts)
        parts = (source_text, os.path.normpath(path), kind_text)
        call: Call = ["mount", *[{"in": len(part) + 1} for part in parts], flags, {"in": len(data_text) + 1}]
        self._call(caught, call, b"".join(part + b"\0" for part in (*parts, data_text)))

    # -- asking ---------------------------------------------------------------------------------------------------

    def _call(
        self, caught: Caught, call: Call, data: bytes = b"",
        result: Callable[[Answer], int] = lambda answer: answer.results[0],
    ) -> None:  # fmt: skip
        self._ask(caught, lambda then: self._caller.ask([call], data, then, processes.name_of(caught.pid)), result)

    def _ask(
        self, caught: Caught, send: Callable[[Callable[[Answer], None]], int],
        result: Callable[[Answer], int] = lambda answer: answer.results[0],
    ) -> None:  # fmt: skip
        """Send a request; its caller waits for the answer."""

        def done(answer: Answer) -> None:
            self._loop.under_way.pop(caught.id, None)
            if answer.died:
                processes.kill(caught.pid, answer.died)
                value = -EINTR
            elif answer.error is not None:
                value = -answer.error.number if isinstance(answer.error, Errno) else -EIO
            else:
                value = result(answer)
            self._listener.answer(caught, value)

        self._loop.under_way[caught.id] = (caught, send(done))


def _signed(value: int) -> int:
    """An ``int`` argument."""
    return (value & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000


def _module_file(pid: int, descriptor: int) -> bytes | int:
    """The bytes behind a descriptor, or the errno that the kernel has for it (fs/kernel_read_file.c)."""
    flags = processes.open_flags(pid, descriptor)
    if flags is None or flags & os.O_PATH or flags & os.O_ACCMODE == os.O_WRONLY:
        return EBADF
    try:
        with open(f"/proc/{pid}/fd/{descriptor}", "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return EINVAL
            if flags & os.O_ACCMODE == os.O_RDWR:
                return ETXTBSY
            if status.st_size == 0:
                return EINVAL
            return file.read(_LARGEST_FILE)
    except OSError as error:
        return error.errno or EBADF
