"""Files of the bare kernel: /proc/modules, /proc/kallsyms, /sys/module, misc devices in /dev. No VFS, but its face."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kobox import link
from kobox.bare.devices import OpenDevice
from kobox.bare.guest import WINDOW, BareGuest
from kobox.bare.modules import LoadedModule, ParameterMemory, modules_text, set_by_module
from kobox.elf.constants import SHT
from kobox.errors import Errno
from kobox.kernel import params
from kobox.kernel.files import DirEntry, Status
from kobox.link.resolve import symbol_name
from kobox.machine.memory import PAGE_SIZE

_ACCMODE, _WRONLY = 3, 1
_CHUNK = 1 << 16
_FIRST_DESCRIPTOR = 3
_MODES = {"sections": 0o400, "uevent": 0o200}
"""Of files in /sys/module, by their folder or their name."""
_ROOT_FOLDERS = ("dev", "proc", "sys")


class _Text:
    """An open file that is no device: its content of when it was opened, and where it stands."""

    def __init__(self, path: str, content: bytes, module: LoadedModule | None) -> None:
        self.path, self.content, self.module, self.at = path, content, module, 0


class BareFiles:
    """The calls that ``kernel.files`` of an image has."""

    def __init__(self, guest: BareGuest) -> None:
        self._guest = guest
        self._open: dict[int, OpenDevice | _Text] = {}

    # -- descriptors ----------------------------------------------------------------------------------------------

    def open(self, path: str, flags: int = 0, mode: int = 0o644) -> int:
        opened: OpenDevice | _Text
        if path.startswith("/dev/"):
            opened = self._drive(self._guest.devices.open(path.removeprefix("/dev/"), flags))
        else:
            node = self._node(path)
            if isinstance(node, tuple):
                raise Errno(errno.EISDIR, path)
            opened = _Text(path, b"" if flags & _ACCMODE == _WRONLY else node(), self._owner(path))
        number = next(n for n in range(_FIRST_DESCRIPTOR, 1 << 16) if n not in self._open)
        self._open[number] = opened
        return number

    def close(self, descriptor: int) -> None:
        opened = self._get(descriptor)
        del self._open[descriptor]
        if isinstance(opened, OpenDevice):
            self._drive(self._guest.devices.close(opened))

    def read_from(self, descriptor: int, size: int) -> bytes:
        opened = self._get(descriptor)
        if isinstance(opened, _Text):
            self._still_there(opened)
            data = opened.content[opened.at : opened.at + size]
            opened.at += len(data)
            return data
        size = min(size, WINDOW[1])
        count: int = self._drive(self._guest.devices.transfer(opened, "read", WINDOW[0], size))
        return self._guest.read(WINDOW[0], min(count, size))

    def write_to(self, descriptor: int, data: bytes) -> int:
        opened = self._get(descriptor)
        if isinstance(opened, _Text):
            self._still_there(opened)
            return self._store(opened.path, data) if data else 0
        data = data[: WINDOW[1]]
        self._guest.write(WINDOW[0], data)
        count: int = self._drive(self._guest.devices.transfer(opened, "write", WINDOW[0], len(data)))
        return count

    def seek(self, descriptor: int, offset: int, whence: int = 0) -> int:
        opened = self._get(descriptor)
        if isinstance(opened, OpenDevice):
            position: int = self._drive(self._guest.devices.seek(opened, offset, whence))
            return position
        opened.at = max(0, offset + (0, opened.at, len(opened.content))[whence])
        return opened.at

    def ioctl(self, descriptor: int, request: int, argument: int | bytes | bytearray = 0) -> tuple[int, bytes]:
        """(result, the argument's bytes afterwards); a number is passed as it is, bytes as a pointer to them."""
        opened = self._get(descriptor)
        if isinstance(opened, _Text):
            raise Errno(errno.ENOTTY, opened.path)
        if isinstance(argument, int):
            return self._drive(self._guest.devices.ioctl(opened, request, argument)), b""
        self._guest.write(WINDOW[0], argument)
        result: int = self._drive(self._guest.devices.ioctl(opened, request, WINDOW[0]))
        return result, self._guest.read(WINDOW[0], len(argument))

    def _owner(self, path: str) -> LoadedModule | None:
        """The module that a file in /sys/module belongs to."""
        parts = path.strip("/").split("/")
        return self._guest.modules.find(parts[2]) if parts[:2] == ["sys", "module"] and len(parts) > 2 else None

    def _still_there(self, opened: _Text) -> None:
        if opened.module is not None and opened.module not in self._guest.modules.loaded:
            raise Errno(errno.ENODEV, opened.path)

    def _get(self, descriptor: int) -> OpenDevice | _Text:
        opened = self._open.get(descriptor)
        if opened is None:
            raise Errno(errno.EBADF, f"descriptor {descriptor}")
        return opened

    def _drive(self, steps: Any) -> Any:
        self._guest.clock.start_call()
        value = self._guest.calls.drive(steps)
        self._guest.settle()
        return value

    # -- whole files ----------------------------------------------------------------------------------------------

    def read(self, path: str) -> bytes:
        descriptor = self.open(path)
        try:
            parts = []
            while chunk := self.read_from(descriptor, _CHUNK):
                parts.append(chunk)
            return b"".join(parts)
        finally:
            self.close(descriptor)

    def write(self, path: str, data: bytes, flags: int = _WRONLY) -> int:
        descriptor = self.open(path, flags)
        try:
            return self.write_to(descriptor, data)
        finally:
            self.close(descriptor)

    def list(self, path: str) -> list[DirEntry]:
        node = self._node(path.rstrip("/") or "/")
        if not isinstance(node, tuple):
            raise Errno(errno.ENOTDIR, path)
        if path.strip("/") == "dev":
            return [DirEntry(name, "char") for name in node]
        below = (f"{path.rstrip('/')}/{name}" for name in node)
        return [
            DirEntry(name, "dir" if isinstance(self._node(full), tuple) else "file")
            for name, full in zip(node, below, strict=True)
        ]

    def status(self, path: str) -> Status:
        if path.startswith("/dev/") and path.removeprefix("/dev/") in self._guest.devices.registered:
            return Status(self._guest.devices.mode(path.removeprefix("/dev/")), 0, 0, 0)
        if self._is_holder(path):
            return Status(stat.S_IFLNK | 0o777, 0, 0, 0)
        node = self._node(path)
        if isinstance(node, tuple):
            return Status(stat.S_IFDIR | 0o755, 0, 0, 0)
        parameter = self._parameter(path)
        mode = (
            parameter[1].perm
            if parameter is not None
            else _MODES.get(path.split("/")[-2 + path.endswith("/uevent")], 0o444)
        )
        return Status(stat.S_IFREG | mode, 4096 if path.startswith("/sys/") else 0, 0, 0)

    def readlink(self, path: str) -> str:
        self._node(path)
        if self._is_holder(path):
            return f"../../{path.rpartition('/')[2]}"
        raise Errno(errno.EINVAL, path)

    def _is_holder(self, path: str) -> bool:
        parts = path.strip("/").split("/")
        return parts[:2] == ["sys", "module"] and parts[3:4] == ["holders"] and len(parts) == 5

    # -- what is there --------------------------------------------------------------------------------------------

    def _node(self, path: str) -> Callable[[], bytes] | tuple[str, ...]:
        """What reads a file, or a directory's names; ``Errno(ENOENT)``."""
        modules = self._guest.modules
        match path.strip("/").split("/"):
            case [""]:
                return _ROOT_FOLDERS
            case ["dev"]:
                return tuple(sorted(self._guest.devices.registered))
            case ["proc"]:
                return ("kallsyms", "modules")
            case ["proc", "modules"]:
                return lambda: "".join(f"{line}\n" for line in modules_text(modules)).encode()
            case ["proc", "kallsyms"]:
                return self._kallsyms
            case ["sys"]:
                return ("module",)
            case ["sys", "module"]:
                return tuple(sorted(module.name for module in modules.loaded))
            case ["sys", "module", name, *rest]:
                module = modules.find(name)
                if module is not None:
                    return self._of_module(module, rest, path)
        raise Errno(errno.ENOENT, path)

    def _of_module(self, module: LoadedModule, rest: Sequence[str], path: str) -> Callable[[], bytes] | tuple[str, ...]:
        attributes = self._attributes(module)
        sections = self._sections(module)
        notes = self._notes(module)
        parameters = tuple(sorted(p.name for p in module.parameters if p.perm))
        match rest:
            case []:
                folders = [
                    "holders",
                    *(["notes"] if notes else []),
                    *(["parameters"] if parameters else []),
                    "sections",
                ]
                return tuple(sorted([*attributes, *folders, "uevent"]))
            case [name] if name in attributes:
                return lambda: (attributes[name].encode("utf-8", "surrogateescape") + b"\n")[: PAGE_SIZE - 1]
            case ["uevent"]:
                return lambda: b""
            case ["notes"] if notes:
                return tuple(notes)
            case ["notes", name] if name in notes:
                return lambda: notes[name]
            case ["holders"]:
                return tuple(user.name for user in self._guest.modules.users(module))
            case ["holders", name] if any(user.name == name for user in self._guest.modules.users(module)):
                return ()
            case ["sections"]:
                return tuple(sections)
            case ["sections", name] if name in sections:
                return lambda: f"0x{sections[name]:016x}\n".encode()
            case ["parameters"] if parameters:
                return parameters
            case ["parameters", name] if name in parameters:
                return lambda: self._show(path)
        raise Errno(errno.ENOENT, path)

    def _attributes(self, module: LoadedModule) -> dict[str, str]:
        from kobox.abi.taint import letters

        found = {
            "coresize": str(module.layout.core_size),
            "initsize": str(module.layout.init_size if module.bases.get("init") else 0),
            "initstate": module.state,
            "refcnt": str(module.refcount - 1),
            "taint": letters(module.taints),
        }
        for tag in ("version", "srcversion"):
            value = module.view.info(tag)
            if value is not None:
                found[tag] = value
        return found

    def _sections(self, module: LoadedModule) -> dict[str, int]:
        view = module.view
        return {
            view.names[section.index]: address
            for section, flags, address in zip(view.sections, module.layout.flags, module.addresses, strict=True)
            if flags & 2 and section.size and address
        }

    def _notes(self, module: LoadedModule) -> dict[str, bytes]:
        view = module.view
        return {
            view.names[section.index]: bytes(view.contents(section.index))
            for section, flags in zip(view.sections, module.layout.flags, strict=True)
            if section.type == SHT.NOTE and flags & 2 and section.size
        }

    def _kallsyms(self) -> bytes:
        guest = self._guest
        lines = [
            f"{address:016x} T {name}" for name, address in sorted(guest.symbols.made.items(), key=lambda row: row[1])
        ]
        for module in guest.modules.loaded:
            lines += _symbols_of(module)
        return "".join(f"{line}\n" for line in lines).encode()

    # -- parameters -----------------------------------------------------------------------------------------------

    def _parameter(self, path: str) -> tuple[LoadedModule, params.Parameter] | None:
        match path.strip("/").split("/"):
            case ["sys", "module", name, "parameters", wanted]:
                module = self._guest.modules.find(name)
                for parameter in module.parameters if module is not None else ():
                    if parameter.name == wanted and parameter.perm and module is not None:
                        return module, parameter
        return None

    def _show(self, path: str) -> bytes:
        found = self._parameter(path)
        if found is None:
            raise Errno(errno.ENOENT, path)
        module, parameter = found
        if not parameter.perm & 0o444:
            raise Errno(errno.EIO, f"{path} cannot be read")
        if parameter.type:
            return params.get_parameter(parameter, ParameterMemory(self._guest))
        guest = self._guest
        entry = module.entries[module.parameters.index(parameter)]
        function = guest.view("kernel_param_ops", guest.view("kernel_param", entry)["ops"])["get"]
        if not function:
            raise Errno(errno.EPERM, path)
        buffer = guest.heap.allocate(4096, zero=True, internal=True)
        count = guest.call(function, buffer, entry) & 0xFFFF_FFFF
        text = guest.read(buffer, min(count, 4096)) if not count >> 31 else b""
        guest.heap.release(buffer)
        if count >> 31:
            raise Errno((1 << 32) - count, path)
        return text

    def _store(self, path: str, data: bytes) -> int:
        found = self._parameter(path)
        if found is None or not found[1].perm & 0o222:
            raise Errno(errno.EIO, f"{path} cannot be written")
        module, parameter = found
        memory = ParameterMemory(self._guest)
        if parameter.type:
            result = params.store(parameter, data, memory)
        else:
            result = set_by_module(self._guest, module, parameter, data) or len(data)
        if result < 0:
            raise Errno(-result, path)
        return result


def _symbols_of(module: LoadedModule) -> Iterator[str]:
    """The lines of a module's symbols: those that outlive init, or all while it is there."""
    view, layout = module.view, module.layout
    table = link.symbol_table(view)
    letters = link.symbol_letters(view, layout.flags, table.shndxs, table.infos)
    numbers = range(1, len(letters)) if module.bases.get("init") else layout.kallsyms.kept[1:]
    for number in numbers:
        section, name = table.shndxs[number], symbol_name(view, table, number)
        base = module.addresses[section] if section < len(module.addresses) else 0
        letter = chr(letters[number])
        exported = module.export(name)
        shown = letter.upper() if exported is not None and not exported.gpl else letter
        if section:
            yield f"{base + table.values[number]:016x} {shown} {name}\t[{module.name}]"
