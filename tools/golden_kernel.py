"""What replaying a recorded case needs of a kernel: the calls a small loader program made, and the places it looked.

``GoldenKernel`` is the protocol; ``tools.golden_box`` serves it with ``kobox.boot()``, tests with a kernel that plays a
recording back. A recording's step is carried out by ``perform``, so that whatever serves the protocol is asked in one
way.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

DEFAULT_COMM = "kload"
"""The name of the process that made the recorded calls: the kernel prints it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call gave its caller.

    ``value`` is what the call returned, or a negative errno. ``killed_by``: the signal that ended the caller instead.
    ``hung``: it never came back. ``died``: the kernel stopped altogether. ``opened``: False when a file could not even
    be opened. ``output`` is what was read.
    """

    value: int | None = 0
    output: bytes | None = None
    killed_by: int | None = None
    hung: bool = False
    died: bool = False
    opened: bool = True

    @property
    def errno_name(self) -> str | None:
        if self.value is None:
            return None
        return errno_name(-self.value) if -4095 <= self.value < 0 else "OK"


@dataclass(frozen=True, slots=True)
class Entry:
    """One name below a directory. ``type``: dir, file or link; ``read_errno`` where reading it failed."""

    type: str
    mode: int | None = None
    content: bytes | None = None
    target: str | None = None
    read_errno: int | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the kernel log. ``level`` is None when it was read from a console that does not say."""

    level: int | None
    text: str


@dataclass(slots=True)
class Files:
    """The bytes behind the file names of a recording: ``ko/hello.ko``, ``image:crc-itu-t.ko``."""

    read: Any = None
    cache: dict[str, bytes] = field(default_factory=dict)

    def __getitem__(self, name: str) -> bytes:
        if name not in self.cache:
            self.cache[name] = self.read(name)
        return self.cache[name]


class GoldenKernel(Protocol):
    """A freshly booted kernel, as one case finds it. All paths are absolute, all text latin-1."""

    def finit_module(self, data: bytes, params: bytes, flags: int) -> Answer: ...
    def init_module(self, data: bytes, params: bytes, length: int | None) -> Answer: ...
    def delete_module(self, name: bytes, flags: int) -> Answer: ...

    def special(self, action: str, kind: str, data: bytes, name: bytes) -> Answer:
        """A call with a bad argument. ``action``: finitspecial (kinds bad wronly path dir null pipe rdwr nullparam
        offset nocap), initspecial (nullbuf nullparam hugelen nocap), deletespecial (null nocap)."""
        ...

    def read(self, path: str) -> Answer: ...
    def write(self, path: str, data: bytes, uid: int) -> Answer: ...
    def open(self, slot: int, path: str, flags: int) -> Answer: ...
    def close(self, slot: int) -> Answer: ...
    def read_slot(self, slot: int, count: int) -> Answer: ...
    def write_slot(self, slot: int, data: bytes) -> Answer: ...
    def seek_slot(self, slot: int, offset: int, whence: int) -> Answer: ...
    def ioctl_slot(self, slot: int, request: int, argument: int) -> Answer: ...

    def start(self, slot: int, step: Mapping[str, Any], files: Files) -> Answer:
        """Make the call of ``step`` in a process of its own and don't wait for it."""
        ...

    def wait(self, slot: int, milliseconds: int) -> Answer:
        """Wait for what was started; its answer, or ``hung`` when it does not come in time."""
        ...

    def sleep(self, milliseconds: int) -> Answer: ...

    def shell(self, line: str) -> Answer:
        """Run a line of a shell; ``output`` is what it prints. ``Unavailable`` where that takes more than there is."""
        ...

    def kallsyms(self, module: str) -> list[str]: ...

    def tree(self, path: str) -> dict[str, Entry]:
        """Everything at and below ``path``, read if its mode lets anyone read it; nothing when it is not there."""
        ...

    def watched(self, path: str) -> dict[str, Entry]:
        """As ``tree``, but as an observer beside the case, not as a step of it."""
        ...

    def proc_modules(self) -> list[str] | None:
        """The lines of /proc/modules; None when nobody can read it any more."""
        ...

    def tainted(self) -> int | None: ...
    def log(self) -> list[Record]:
        """What was logged since the last call."""
        ...

    def uevents(self) -> list[list[str]]:
        """The messages sent since the last call: ``add@/module/x`` and then its variables."""
        ...


def perform(kernel: GoldenKernel, action: str, args: Mapping[str, Any], files: Files) -> Answer:
    """Carry out one step that gives an ``Answer``; ``tree`` and ``kallsyms`` are asked of the kernel directly."""
    match action:
        case "finit_module":
            return kernel.finit_module(files[args["file"]], encode(args["params"]), args["flags"])
        case "init_module":
            return kernel.init_module(files[args["file"]], encode(args["params"]), args.get("len"))
        case "delete_module":
            return kernel.delete_module(encode(args["name"]), delete_flags(args["flags"]))
        case "finitspecial" | "initspecial" | "deletespecial":
            data = files[args["file"]] if "file" in args else b""
            return kernel.special(action, args["kind"], data, encode(args.get("name") or ""))
        case "read":
            return kernel.read(args["path"])
        case "write":
            return kernel.write(args["path"], encode(args["data"]), args.get("uid") or 0)
        case "open":
            return kernel.open(args["slot"], args["path"], args["oflags"])
        case "close":
            return kernel.close(args["slot"])
        case "fread":
            return kernel.read_slot(args["slot"], args["count"])
        case "fwrite":
            return kernel.write_slot(args["slot"], encode(args["data"]))
        case "lseek":
            return kernel.seek_slot(args["slot"], args["offset"], args["whence"])
        case "ioctl":
            request = args.get("request", args.get("cmd", 0))
            return kernel.ioctl_slot(args["slot"], request, args.get("arg") or 0)
        case "bg":
            return kernel.start(args["slot"], args["step"], files)
        case "bgwait":
            return kernel.wait(args["slot"], args["ms"])
        case "sleep":
            return kernel.sleep(args["ms"])
        case "sh":
            return kernel.shell(args["cmd"])
    raise ValueError(f"unknown action {action!r}")


def encode(text: str) -> bytes:
    return text.encode("latin-1")


def delete_flags(names: Sequence[str] | int) -> int:
    """O_NONBLOCK and O_TRUNC as delete_module takes them, and any other flag by its number."""
    if isinstance(names, int):
        return names
    known = {"O_NONBLOCK": 0o4000, "O_TRUNC": 0o1000}
    value = 0
    for name in names:
        value |= known[name] if name in known else int(name, 0)
    return value


_KERNEL_ONLY = {512: "ERESTARTSYS", 513: "ERESTARTNOINTR", 517: "EPROBE_DEFER", 524: "ENOTSUPP", 95: "ENOTSUP"}


def errno_name(number: int) -> str:
    """The name a recording uses: the C library's, the kernel's own above 511, else ``E`` and the number."""
    return _KERNEL_ONLY.get(number) or errno.errorcode.get(number) or f"E{number}"
