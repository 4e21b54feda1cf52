"""A recorded case on a kobox kernel: ``GoldenKernel`` served by ``kobox.boot()`` and the system calls of its guest."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kobox.box import Kernel, boot
from kobox.errors import Errno, GuestError
from kobox.kernel.guest import signed64
from kobox.kernel.subsystem import Operation
from kobox.kernel.tasks import Job, JobTimeout, TaskDied
from tools.golden_files import Unavailable
from tools.golden_kernel import DEFAULT_COMM, Answer, Entry, Files, Record, delete_flags, encode
from tools.golden_shell import Shell, recorded_root

_FILE = "/kload.ko"
_O_WRONLY, _O_RDWR, _O_CREAT, _O_TRUNC, _O_CLOEXEC, _O_PATH = 1, 2, 0o100, 0o1000, 0o2000000, 0o10000000
_O_DIRECTORY = 0o200000
_AF_NETLINK, _SOCK_DGRAM, _SOCK_NONBLOCK, _KOBJECT_UEVENT, _MSG_DONTWAIT = 16, 2, 0o4000, 15, 0x40
_CAP_SYS_MODULE = 16
_SIGALRM = 14
_ERESTART = {512, 513, 514, 516}
_EINTR = 4
_ALARM_NS = 4_000_000_000
_HUNG_NS = 2_000_000_000
_SETTLE_SECONDS = 5
"""What the kernel still has to say after its boot (clocks) is said by then."""
_KEPT_AT = 32 << 20
"""Where in the window for system calls the strings of background calls lie: nobody else writes there."""


class BoxBooter:
    """Boots a kernel for each command line once; every case after the first starts from its pristine state."""

    def __init__(self, image: str | None, loader: str, recording: Path | None = None) -> None:
        """``recording`` is the directory whose cases ask for modules by name."""
        self.image, self.loader, self.recording = image, loader, recording
        self.kernels: dict[str, Kernel] = {}
        self.sockets: dict[str, int] = {}

    @property
    def modules(self) -> Path | None:
        """The image's tree of modules."""
        if self.image == "bare":
            return None
        return self._kernel("").image.modules

    def __call__(self, boot_args: str) -> BoxKernel:
        kernel = self._kernel(boot_args)
        kernel.reset()
        if self.loader == "kernel":
            # Code that the guest's own loader wrote is not on the list of what changed since the snapshot.
            kernel.guest.machine.cpu.forget_all_code()
        return BoxKernel(kernel, self.sockets[boot_args])

    def _kernel(self, boot_args: str) -> Kernel:
        if boot_args not in self.kernels:
            kernel = boot(self.image, append=boot_args, comm=DEFAULT_COMM, loader=self.loader, check_memory=False)
            if self.recording is not None and kernel.image.modules is not None:
                kernel.root = str(recorded_root(self.recording, kernel.image.modules))
            self.sockets[boot_args] = _uevent_socket(kernel)
            kernel.sleep(_SETTLE_SECONDS)
            # The recorded machine was started with panic=-1: it does not stand still after its last words.
            kernel.guest.write_uint(kernel.guest.symbol("panic_timeout"), 0xFFFF_FFFF, 4)
            kernel.checkpoint()
            self.kernels[boot_args] = kernel
        return self.kernels[boot_args]


def _uevent_socket(kernel: Kernel) -> int:
    """A socket that hears what udev would hear; negative where the kernel has none."""
    call, window = kernel.syscalls.call, kernel.syscalls.window
    descriptor = call("socket", _AF_NETLINK, _SOCK_DGRAM | _SOCK_NONBLOCK, _KOBJECT_UEVENT)
    if descriptor >= 0:
        window.clear()
        address = window.put(struct.pack("<HHII", _AF_NETLINK, 0, 0, 1))
        call("bind", descriptor, address, 12)
    return descriptor


class BoxKernel:
    """One case's kernel."""

    def __init__(self, kernel: Kernel, socket: int) -> None:
        self.kernel = kernel
        self.guest = kernel.guest
        self.tasks = kernel.guest.tasks
        self.syscalls = kernel.syscalls
        self.socket = socket
        self.mark = kernel.booted.log.mark()
        self.slots: dict[int, int] = {}
        self.background: dict[int, Job | Operation] = {}
        self.waiting: list[tuple[int, Mapping[str, Any], Files]] = []
        self.kept = kernel.guest.machine.pages.window[0] + _KEPT_AT

    # Calls and how they may end

    def call(self, name: str, *arguments: int) -> Answer:
        """One system call of a process with an alarm of four seconds."""
        self.run_waiting()
        return self.finish(self.syscalls.start(name, *arguments), _ALARM_NS, True)

    def finish(self, job: Job, nanoseconds: int, has_alarm: bool) -> Answer:
        interrupted = False
        try:
            try:
                self.tasks.finish(job, nanoseconds)
            except JobTimeout:
                if not has_alarm or self.panicked:
                    return Answer(None, hung=not self.panicked, died=self.panicked)
                interrupted = True
                self.ring(job)
                self.tasks.finish(job, _HUNG_NS)
        except JobTimeout:
            return Answer(None, hung=True)
        except TaskDied:
            job.died = True
        except GuestError:
            return Answer(None, died=True)
        if self.panicked:
            return Answer(None, died=True)
        if job.died:
            return Answer(None, killed_by=self.guest.view("task_struct", job.task)["exit_code"] & 0x7F)
        value = signed64(job.result)
        if interrupted:
            self.guest.call("flush_signals", job.task)
            if -value in _ERESTART:
                value = -_EINTR
        return Answer(value)

    def ring(self, job: Job) -> None:
        """The alarm: a signal with a handler, so that it interrupts and does not kill."""
        task = self.guest.view("task_struct", job.task)
        action = self.guest.layouts.size("k_sigaction")
        self.guest.write_uint(
            task["sighand"] + self.guest.layouts.offset("sighand_struct", "action") + (_SIGALRM - 1) * action, 0x1000
        )
        self.guest.call("send_sig", _SIGALRM, job.task, 1)

    def text(self, value: bytes) -> int:
        return self.syscalls.window.text(value)

    def keep(self, value: bytes) -> int:
        """A string for a call in the background."""
        address = self.kept
        self.guest.write(address, value + b"\0")
        self.kept += len(value) + 16 & ~15
        return address

    def open_raw(self, path: str, flags: int) -> int:
        self.syscalls.window.clear()
        return self.syscalls.call("openat", -100, self.text(encode(path)), flags, 0o644)

    def place(self, data: bytes) -> None:
        self.kernel.files.write(_FILE, data, _O_WRONLY | _O_CREAT | _O_TRUNC)
        self.guest.call("task_work_run")

    # Modules

    def operate(self, operation: Operation, nanoseconds: int = _ALARM_NS, has_alarm: bool = True) -> Answer:
        """Drive a load or unload of kobox's own loader to its end, to its death, or to the alarm."""
        room, clock = self.kernel.modules_room, self.guest.machine.clock
        deadline = clock.now + nanoseconds
        while not operation.done and not operation.died:
            if has_alarm and clock.now >= deadline and operation.waits and operation.job in self.tasks.jobs:
                room.interrupt(operation, _EINTR)
                has_alarm, deadline = False, clock.now + _HUNG_NS
            try:
                room.step(operation, max(deadline - clock.now, 1_000_000))
            except JobTimeout:
                if not has_alarm or operation.job is None or self.panicked:
                    return Answer(None, hung=not self.panicked, died=self.panicked)
                has_alarm, deadline = False, clock.now + _HUNG_NS
                self.ring(operation.job)
            except GuestError:
                return Answer(None, died=True)
            self.go_on()
        if operation.died:
            return Answer(None, killed_by=operation.exit_code & 0x7F)
        return Answer(operation.result)

    def go_on(self) -> None:
        """Take background loads as far as the time that has passed allows."""
        for running in self.background.values():
            if isinstance(running, Operation) and not (running.done or running.died):
                self.kernel.modules_room.run_until_blocked(running)

    @property
    def panicked(self) -> bool:
        """Whether the kernel has stopped for good; a machine would restart (``panic=-1``) or stand still."""
        return self.guest.read_int(self.guest.symbol("panic_cpu"), 4, True) >= 0

    @property
    def is_own(self) -> bool:
        return self.kernel.loader == "kobox"

    def finit_module(self, data: bytes, params: bytes, flags: int) -> Answer:
        self.run_waiting()
        self.place(data)
        descriptor = self.open_raw(_FILE, _O_CLOEXEC)
        answer = self.finit(descriptor, params, flags)
        if not answer.died:
            self.syscalls.call("close", descriptor)
        return answer

    def refusal(self, data: bytes) -> str:
        """Why kobox's own loader refuses a module, in words for people; empty when it does not."""
        operation = self.kernel.start_load(data)
        self.kernel.finish_load(operation)
        return str(operation.reason)

    def finit(self, descriptor: int, params: bytes | None, flags: int) -> Answer:
        if self.is_own:
            return self.operate(self.kernel.modules_room.start_finit(descriptor, params, flags))
        self.syscalls.window.clear()
        return self.call("finit_module", descriptor, 0 if params is None else self.text(params), flags)

    def init_module(self, data: bytes | None, params: bytes | None, length: int | None) -> Answer:
        self.run_waiting()
        size = len(data or b"") if length is None else length
        held = None if data is None else data.ljust(size if size < 1 << 30 else 0, b"\0")
        if self.is_own:
            return self.operate(self.kernel.modules_room.start_init(held, size, params))
        window = self.syscalls.window
        window.clear()
        text = 0 if params is None else self.text(params)
        return self.call("init_module", 0 if held is None else window.put(held), size, text)

    def delete_module(self, name: bytes | None, flags: int) -> Answer:
        self.run_waiting()
        if self.is_own:
            return self.operate(self.kernel.modules_room.start_delete(name, flags))
        self.syscalls.window.clear()
        return self.call("delete_module", 0 if name is None else self.text(name), flags)

    def special(self, action: str, kind: str, data: bytes, name: bytes) -> Answer:
        if kind == "nocap":
            with self.without_capability():
                return self.plain(action, data, name)
        if action == "deletespecial":
            return self.delete_module(None, 0o4000)
        if action == "initspecial":
            length = 1 << 62 if kind == "hugelen" else len(data)
            return self.init_module(None if kind == "nullbuf" else data, None if kind == "nullparam" else b"", length)
        return self.finit(self.odd_descriptor(kind, data), None if kind == "nullparam" else b"", 0)

    def plain(self, action: str, data: bytes, name: bytes) -> Answer:
        if action == "deletespecial":
            return self.delete_module(name, 0o4000)
        if action == "initspecial":
            return self.init_module(data, b"", None)
        return self.finit_module(data, b"", 0)

    def odd_descriptor(self, kind: str, data: bytes) -> int:
        if kind == "bad":
            return 999
        if kind in ("dir", "null"):
            return self.open_raw("/" if kind == "dir" else "/dev/null", 0)
        if kind == "pipe":
            self.syscalls.window.clear()
            ends = self.syscalls.window.reserve(8)
            self.syscalls.call("pipe2", ends, 0)
            return self.guest.read_int(ends, 4, True)
        self.place(data)
        flags = {"wronly": _O_WRONLY, "rdwr": _O_RDWR, "path": _O_PATH}.get(kind, 0)
        descriptor = self.open_raw(_FILE, flags)
        if kind == "offset":
            self.syscalls.call("lseek", descriptor, 100, 0)
        return descriptor

    @contextmanager
    def without_capability(self) -> Iterator[None]:
        """Take CAP_SYS_MODULE from the tasks that make calls, and give it back."""
        with self.credentials() as sets:
            for address in sets:
                self.guest.write_uint(address, self.guest.read_uint(address) & ~(1 << _CAP_SYS_MODULE))
            yield

    @contextmanager
    def credentials(self) -> Iterator[list[int]]:
        """Where the effective capabilities of those tasks lie; what is changed there is undone."""
        tasks = {self.tasks.state.resting, *self.tasks.state.parked} - {0}
        creds = {self.guest.view("task_struct", task)["cred"] for task in tasks}
        size = self.guest.layouts.size("cred")
        kept = {cred: self.guest.read(cred, size) for cred in creds}
        usage = self.guest.layouts.offset("cred", "uid")
        try:
            yield [self.guest.view("cred", cred).at("cap_effective") for cred in creds]
        finally:
            for cred, data in kept.items():
                self.guest.write(cred + usage, data[usage : self.guest.layouts.offset("cred", "user")])

    # Files

    def read(self, path: str) -> Answer:
        descriptor = self.open_raw(path, 0)
        if descriptor < 0:
            return Answer(descriptor)
        answer = self.read_all(descriptor)
        if not answer.died:
            self.syscalls.call("close", descriptor)
        return answer

    def read_all(self, descriptor: int) -> Answer:
        parts: list[bytes] = []
        while True:
            answer = self.read_some(descriptor, 1 << 16)
            if answer.value is None or answer.value < 0:
                return answer
            if not answer.output:
                break
            parts.append(answer.output)
        data = b"".join(parts)
        return Answer(len(data), data)

    def read_some(self, descriptor: int, size: int) -> Answer:
        self.syscalls.window.clear()
        buffer = self.syscalls.window.reserve(size)
        answer = self.call("read", descriptor, buffer, size)
        if answer.value is None or answer.value < 0:
            return answer
        return Answer(answer.value, self.guest.read(buffer, answer.value))

    def write(self, path: str, data: bytes, uid: int) -> Answer:
        if uid:
            with self.credentials() as sets:
                for address in sets:
                    cred = address - self.guest.layouts.offset("cred", "cap_effective")
                    self.guest.write_uint(address, 0)
                    for name in ("uid", "euid", "suid", "fsuid"):
                        self.guest.write_uint(cred + self.guest.layouts.offset("cred", name), uid, 4)
                return self.write(path, data, 0)
        descriptor = self.open_raw(path, _O_WRONLY)
        if descriptor < 0:
            return Answer(descriptor, opened=False)
        self.syscalls.window.clear()
        answer = self.call("write", descriptor, self.syscalls.window.put(data), len(data))
        if not answer.died:
            self.syscalls.call("close", descriptor)
        return answer

    def open(self, slot: int, path: str, flags: int) -> Answer:
        descriptor = self.open_raw(path, flags)
        self.slots[slot] = descriptor
        return Answer(min(descriptor, 0))

    def close(self, slot: int) -> Answer:
        return self.call("close", self.slots.pop(slot))

    def read_slot(self, slot: int, count: int) -> Answer:
        answer = self.read_some(self.slots[slot], count)
        return answer if answer.output is not None else Answer(answer.value, b"", answer.killed_by, answer.hung)

    def write_slot(self, slot: int, data: bytes) -> Answer:
        self.syscalls.window.clear()
        return self.call("write", self.slots[slot], self.syscalls.window.put(data), len(data))

    def seek_slot(self, slot: int, offset: int, whence: int) -> Answer:
        return self.call("lseek", self.slots[slot], offset, whence)

    def ioctl_slot(self, slot: int, request: int, argument: int) -> Answer:
        return self.call("ioctl", self.slots[slot], request, argument)

    # In the background

    def start(self, slot: int, step: Mapping[str, Any], files: Files) -> Answer:
        """Note what is to run: like the recorder's child, it runs when the caller does something that takes time."""
        self.waiting.append((slot, step, files))
        return Answer(0)

    def run_waiting(self) -> None:
        while self.waiting:
            slot, step, files = self.waiting.pop(0)
            self.background[slot] = self.begin(step, files)

    def begin(self, step: Mapping[str, Any], files: Files) -> Job | Operation:
        room = self.kernel.modules_room
        if step["action"] == "delete_module":
            name, flags = encode(step["name"]), delete_flags(step["flags"])
            if self.is_own:
                return self.begin_own(room.start_delete(name, flags))
            return self.begin_job("delete_module", self.keep(name), flags)
        self.place(files[step["file"]])
        descriptor, params = self.open_raw(_FILE, 0), encode(step["params"])
        if self.is_own:
            return self.begin_own(room.start_finit(descriptor, params, step["flags"]))
        return self.begin_job("finit_module", descriptor, self.keep(params), step["flags"])

    def begin_own(self, operation: Operation) -> Operation:
        self.kernel.modules_room.run_until_blocked(operation)
        return operation

    def begin_job(self, name: str, *arguments: int) -> Job:
        job = self.syscalls.start(name, *arguments)
        self.tasks.run_until_blocked(job)
        return job

    def wait(self, slot: int, milliseconds: int) -> Answer:
        self.run_waiting()
        running, patience = self.background[slot], milliseconds * 1_000_000
        if isinstance(running, Job):
            return self.finish(running, patience, False)
        return self.operate(running, patience, False)

    def sleep(self, milliseconds: int) -> Answer:
        self.run_waiting()
        self.kernel.sleep(milliseconds / 1000)
        self.go_on()
        return Answer(0)

    def shell(self, line: str) -> Answer:
        if not self.is_own:
            raise Unavailable("kobox's own loader")
        self.run_waiting()
        return Answer(0, Shell(self.kernel).run(line))

    # What can be seen

    def kallsyms(self, module: str) -> list[str]:
        data = self.read("/proc/kallsyms").output or b""
        lines = data.decode("latin-1").splitlines()
        return [line.replace("\t", " ") for line in lines if line.endswith(f"[{module}]")]

    def tree(self, path: str) -> dict[str, Entry]:
        self.run_waiting()
        found: dict[str, Entry] = {}
        self.add_tree(path, found)
        return found

    def watched(self, path: str) -> dict[str, Entry]:
        waiting, self.waiting = self.waiting, []
        try:
            return self.tree(path)
        finally:
            self.waiting = waiting

    def add_tree(self, path: str, found: dict[str, Entry]) -> None:
        files, name = self.kernel.files, encode(path).decode("utf-8", "surrogateescape")
        try:
            mode = files.status(name).mode
        except (Errno, GuestError):
            return
        kind, permissions = mode & 0o170000, mode & 0o7777
        if kind == 0o120000:
            found[path] = Entry(
                "link", target=files.readlink(name).encode("utf-8", "surrogateescape").decode("latin-1")
            )
        elif kind == 0o040000:
            found[path] = Entry("dir", permissions)
            for below in sorted(self.names_in(path)):
                self.add_tree(f"{path}/{below}", found)
        elif permissions & 0o444:
            answer = self.read(path)
            number = -answer.value if answer.value is not None and answer.value < 0 else None
            found[path] = Entry("file", permissions, answer.output, read_errno=number)
        else:
            found[path] = Entry("file", permissions)

    def names_in(self, path: str) -> list[str]:
        """What a directory lists up to its end, or up to a name that the kernel refuses to give."""
        descriptor = self.open_raw(path, _O_DIRECTORY)
        names: list[str] = []
        while descriptor >= 0:
            self.syscalls.window.clear()
            buffer = self.syscalls.window.reserve(1 << 16)
            count = self.syscalls.call("getdents64", descriptor, buffer, 1 << 16)
            if count <= 0:
                self.syscalls.call("close", descriptor)
                break
            data, at = self.guest.read(buffer, count), 0
            while at < count:
                (length,) = struct.unpack_from("<H", data, at + 16)
                names.append(data[at + 19 : at + length].split(b"\0")[0].decode("latin-1"))
                at += length
        return [name for name in names if name not in (".", "..")]

    def proc_modules(self) -> list[str] | None:
        answer = self.read("/proc/modules")
        return None if answer.output is None else answer.output.decode("latin-1").splitlines()

    def tainted(self) -> int | None:
        return self.kernel.tainted

    def log(self) -> list[Record]:
        log = self.kernel.booted.log
        records = log.since(self.mark)
        self.mark += len(records)
        return [
            Record(record.level, record.text.encode("utf-8", "surrogateescape").decode("latin-1")) for record in records
        ]

    def uevents(self) -> list[list[str]]:
        messages: list[list[str]] = []
        while self.socket >= 0:
            self.syscalls.window.clear()
            buffer = self.syscalls.window.reserve(8192)
            count = self.syscalls.call("recvfrom", self.socket, buffer, 8192, _MSG_DONTWAIT, 0, 0)
            if count <= 0:
                break
            parts = self.guest.read(buffer, count).decode("latin-1").split("\0")
            messages.append([part for part in parts if part])
        return messages
