"""A recorded case on the bare kernel: ``GoldenKernel`` served by ``kobox.boot("bare")``.

The bare kernel has no processes, no lockdown and no keys, and only some of the kernel's functions. ``needs_an_image``
says which cases ask for what it does not have.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kobox.bare.kernel import BareKernel
from kobox.errors import Errno, KoboxError
from kobox.kernel.tasks import KernelDead, TaskDied
from kobox.ko import parse_module
from tools.golden_kernel import DEFAULT_COMM, Answer, Entry, Record, encode

_NAMES = "utf-8", "surrogateescape"
_ELF_HEADER = 64
_BUILT_IN = ("kernel", "module")


class BareBooter:
    """Starts a kernel for every case: it takes a millisecond."""

    modules = None

    def __init__(self, image: str | None, loader: str) -> None:
        if loader != "kobox":
            raise KoboxError("the bare kernel has no loader of its own")

    def waits_for(self, case: Mapping[str, Any], file: Callable[[str], bytes]) -> str:
        missing = needs_an_image(case, file)
        return f"an image: {missing}" if missing else ""

    def __call__(self, boot_args: str) -> BareGolden:
        return BareGolden(BareKernel(comm=DEFAULT_COMM))


def needs_an_image(case: Mapping[str, Any], file: Callable[[str], bytes]) -> str:
    """What a case asks for that the bare kernel does not have; empty if nothing."""
    if case["boot_args"]:
        return "a kernel command line"
    if any(step["action"] == "sh" for step in case["steps"]):
        return "a shell"
    steps = [step["args"].get("step") or step["args"] for step in case["steps"]]
    actions = {step["action"] for step in case["steps"]}
    if actions & {"bg", "finitspecial", "initspecial", "deletespecial"}:
        return "processes and their system calls"
    names = {args["file"] for args in steps if args.get("file")}
    if any(name.startswith("image:") or name in (case.get("recipes") or {}) for name in names):
        return "a module of the image"
    paths = [args["path"] for args in steps if "path" in args]
    if any(not path.startswith(("/sys/module/", "/proc/modules", "/dev/")) for path in paths):
        return "files of the kernel"
    shown = {path for step in case["steps"] for path in step["sysfs"]}
    if any(path.split("/")[3] in _BUILT_IN for path in shown):
        return "built-in modules"
    if any(b"~Module signature appended~" in file(name) for name in names):
        return "the image's keys"
    return "functions that it does not have" if _lacking(case, [file(name) for name in sorted(names)]) else ""


def _lacking(case: Mapping[str, Any], files: list[bytes]) -> set[str]:
    """Functions that modules ask for and neither the bare kernel nor another of them has, though the recorded kernel
    did: it did not call them unknown."""
    wanted: set[str] = set()
    offered: set[str] = set()
    for data in files:
        try:
            module = parse_module(data, "module")
            wanted |= {symbol.name for symbol in module.imports if not symbol.weak}
            offered |= {export.name for export in module.exports}
        except KoboxError:
            continue  # what cannot be read is refused before its symbols matter
    said = "\n".join(line["text"] for step in case["steps"] for line in step["dmesg"])
    with BareKernel() as kernel:
        has = kernel.guest.modules.kernel.export
        return {
            name for name in wanted - offered if has(name) is None and f"Unknown symbol {name} (err -2)" not in said
        }


class BareGolden:
    """One case's kernel."""

    def __init__(self, kernel: BareKernel) -> None:
        self.kernel = kernel
        self.logged = 0
        self.slots: dict[int, int] = {}

    def ask(self, call: Callable[[], int]) -> Answer:
        """How a call ended."""
        try:
            return Answer(call())
        except Errno as error:
            return Answer(-error.number)
        except TaskDied:
            return Answer(None, died=True) if self.kernel.guest.dead else Answer(None, killed_by=self.signal())
        except KernelDead:
            return Answer(None, died=True)
        except KoboxError:
            return Answer(None, hung=True)

    def signal(self) -> int:
        """A page fault kills with SIGKILL, every other oops with SIGSEGV."""
        faults = [record.text for record in self.kernel.dmesg() if "#PF: error_code" in record.text]
        others = [record.text for record in self.kernel.dmesg() if " [#" in record.text]
        return 9 if len(faults) and len(faults) == len(others) else 11

    # Modules

    def finit_module(self, data: bytes, params: bytes, flags: int) -> Answer:
        if not data:
            return Answer(-errno.EINVAL)
        return self.load(data, params, flags)

    def init_module(self, data: bytes, params: bytes, length: int | None) -> Answer:
        held = data if length is None else data[:length].ljust(length, b"\0")
        if len(held) < _ELF_HEADER:
            return Answer(-errno.ENOEXEC)
        return self.load(held, params, 0)

    def load(self, data: bytes, params: bytes, flags: int) -> Answer:
        return self.ask(lambda: self.kernel.finish_load(self.kernel.start_load(data, params.decode(*_NAMES), flags)))

    def delete_module(self, name: bytes, flags: int) -> Answer:
        return self.ask(lambda: self.kernel.delete_module(name.decode("latin-1"), flags))

    # Files

    def read(self, path: str) -> Answer:
        try:
            data = self.kernel.read(_path(path))
        except Errno as error:
            return Answer(-error.number)
        return Answer(len(data), data)

    def write(self, path: str, data: bytes, uid: int) -> Answer:
        files = self.kernel.files
        try:
            descriptor = files.open(_path(path), 1)
        except Errno as error:
            return Answer(-error.number, opened=False)
        answer = self.ask(lambda: files.write_to(descriptor, data))
        if not answer.died:
            files.close(descriptor)
        return answer

    def open(self, slot: int, path: str, flags: int) -> Answer:
        def call() -> int:
            self.slots[slot] = self.kernel.files.open(_path(path), flags)
            return 0

        return self.ask(call)

    def close(self, slot: int) -> Answer:
        def call() -> int:
            self.kernel.files.close(self.slots.pop(slot))
            return 0

        return self.ask(call)

    def read_slot(self, slot: int, count: int) -> Answer:
        try:
            data = self.kernel.files.read_from(self.slots[slot], count)
        except Errno as error:
            return Answer(-error.number, b"")
        return Answer(len(data), data)

    def write_slot(self, slot: int, data: bytes) -> Answer:
        return self.ask(lambda: self.kernel.files.write_to(self.slots[slot], data))

    def seek_slot(self, slot: int, offset: int, whence: int) -> Answer:
        return self.ask(lambda: self.kernel.files.seek(self.slots[slot], offset, whence))

    def ioctl_slot(self, slot: int, request: int, argument: int) -> Answer:
        return self.ask(lambda: self.kernel.files.ioctl(self.slots[slot], request, argument)[0])

    def sleep(self, milliseconds: int) -> Answer:
        self.kernel.sleep(milliseconds / 1000)
        return Answer(0)

    # What can be seen

    def kallsyms(self, module: str) -> list[str]:
        lines = self.kernel.read("/proc/kallsyms").decode("latin-1").splitlines()
        return [line.replace("\t", " ") for line in lines if line.endswith(f"[{module}]")]

    def tree(self, path: str) -> dict[str, Entry]:
        return dict(self.entries(path))

    watched = tree

    def entries(self, path: str) -> Iterator[tuple[str, Entry]]:
        files = self.kernel.files
        try:
            mode = files.status(_path(path)).mode
        except Errno:
            return
        permissions = stat.S_IMODE(mode)
        if stat.S_ISLNK(mode):
            yield path, Entry("link", target=files.readlink(_path(path)))
        elif stat.S_ISDIR(mode):
            yield path, Entry("dir", permissions)
            for entry in files.list(_path(path)):
                if not entry.name:
                    break  # a kernel gives no name behind an empty one
                yield from self.entries(f"{path}/{entry.name}")
        elif permissions & 0o444:
            answer = self.read(path)
            failed = answer.value is not None and answer.value < 0
            yield path, Entry("file", permissions, answer.output, read_errno=-(answer.value or 0) if failed else None)
        else:
            yield path, Entry("file", permissions)

    def proc_modules(self) -> list[str] | None:
        return self.kernel.read("/proc/modules").decode("latin-1").splitlines()

    def tainted(self) -> int | None:
        return self.kernel.tainted

    def log(self) -> list[Record]:
        records = self.kernel.dmesg()[self.logged :]
        self.logged += len(records)
        return [Record(record.level, record.text.encode(*_NAMES).decode("latin-1")) for record in records]

    def uevents(self) -> list[list[str]]:
        heard, self.kernel.guest.uevents = self.kernel.guest.uevents, []
        return heard


def _path(path: str) -> str:
    return encode(path).decode(*_NAMES)
