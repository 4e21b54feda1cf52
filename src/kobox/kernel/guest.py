"""A booted image seen from Python: symbols, structures by BTF name, memory, calls. No policy, no module subsystem.

Addresses are guest-virtual. Structures are ``View`` objects: an address and a BTF struct; ``view["core_layout.size"]``
reads a member, assignment writes it, ``view.at("list")`` is a member's address.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from kobox.errors import NotModelled
from kobox.machine.memory import PAGE_SIZE

if TYPE_CHECKING:
    from kobox.image import Image
    from kobox.kernel.helpers import Helpers
    from kobox.kernel.tasks import Tasks
    from kobox.machine.machine import Machine
    from kobox.machine.pc import Pc


class Field:
    """Where a member lies and how it reads; resolved from BTF once per path."""

    __slots__ = ("bit_offset", "bit_size", "offset", "signed", "size")

    def __init__(self, offset: int, size: int, signed: bool, bit_offset: int, bit_size: int) -> None:
        self.offset, self.size, self.signed = offset, size, signed
        self.bit_offset, self.bit_size = bit_offset, bit_size


class Layouts:
    """Struct sizes and members of one image by name."""

    def __init__(self, image: Image) -> None:
        self._btf = image.btf
        self.field = lru_cache(maxsize=None)(self._field)
        self.size = lru_cache(maxsize=None)(self._size)
        self.enum = lru_cache(maxsize=None)(self._enum)

    def has(self, struct_name: str, path: str) -> bool:
        """Whether the struct exists and has that member: how versions are told apart."""
        found = self._btf.find_struct(struct_name)
        return found is not None and found.find(path) is not None

    def offset(self, struct_name: str, path: str) -> int:
        """Byte offset of a member."""
        return self.field(struct_name, path).offset

    def _enum(self, name: str) -> Mapping[str, int]:
        return MappingProxyType(dict(self._btf.enum(name)))

    def _size(self, struct_name: str) -> int:
        return int(self._btf.struct(struct_name).size)

    def _field(self, struct_name: str, path: str) -> Field:
        member = self._btf.struct(struct_name).member(path)
        kind = member.type.strip()
        return Field(member.offset, member.size, bool(kind.is_signed), member.bit_offset, member.bit_size)


class View:
    """A structure in guest memory."""

    __slots__ = ("_guest", "address", "struct")

    def __init__(self, guest: Guest, struct_name: str, address: int) -> None:
        self._guest, self.struct, self.address = guest, struct_name, address

    def at(self, path: str) -> int:
        """Address of a member."""
        return self.address + self._guest.layouts.offset(self.struct, path)

    def __getitem__(self, path: str) -> int:
        field = self._guest.layouts.field(self.struct, path)
        if field.bit_size:
            first = field.bit_offset % 8
            whole = self._guest.read_uint(self.address + field.bit_offset // 8, 8 if first + field.bit_size > 32 else 4)
            return whole >> first & ((1 << field.bit_size) - 1)
        return self._guest.read_int(self.address + field.offset, field.size, field.signed)

    def __setitem__(self, path: str, value: int) -> None:
        field = self._guest.layouts.field(self.struct, path)
        if field.bit_size:
            address, first = self.address + field.bit_offset // 8, field.bit_offset % 8
            mask = ((1 << field.bit_size) - 1) << first
            width = 8 if first + field.bit_size > 32 else 4
            whole = self._guest.read_uint(address, width)
            self._guest.write_uint(address, whole & ~mask | (value << first) & mask, width)
            return
        self._guest.write_uint(self.address + field.offset, value, field.size)

    def text(self, path: str) -> str:
        """A ``char`` array member up to its NUL."""
        field = self._guest.layouts.field(self.struct, path)
        return self._guest.read(self.address + field.offset, field.size).split(b"\0")[0].decode("latin-1")


class Guest:
    """The kernel under test. ``tasks`` and ``helpers`` are set by whoever assembles the machine."""

    tasks: Tasks
    helpers: Helpers

    def __init__(self, image: Image, machine: Machine, pc: Pc) -> None:
        self.image, self.machine, self.pc = image, machine, pc
        self.layouts = Layouts(image)
        self.symbols = image.symbols
        self._known: dict[str, int] = {}
        self._pages = machine.pages
        self._current_at = 0

    # -- symbols ------------------------------------------------------------------------------------------------

    def symbol(self, name: str) -> int:
        """Address of a kernel symbol; ``NotModelled`` when this kernel has none of that name."""
        found = self._known.get(name)
        if found is None:
            found = self.symbols.get(name)
            if found is None:
                raise NotModelled(f"kernel {self.image.release} has no symbol {name}")
            self._known[name] = found = int(found)
        return found

    def has(self, name: str) -> bool:
        return name in self.symbols

    def first_symbol(self, *names: str) -> int:
        """The first of several names that this kernel has (renames between releases)."""
        for name in names:
            if name in self._known or self.has(name):
                return self.symbol(name)
        raise NotModelled(f"kernel {self.image.release} has none of {', '.join(names)}")

    # -- memory -------------------------------------------------------------------------------------------------

    def read(self, address: int, size: int) -> bytes:
        return self._pages.read(address, size)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        self._pages.write(address, data)

    def read_uint(self, address: int, size: int = 8) -> int:
        return int.from_bytes(self._pages.read(address, size), "little")

    def read_int(self, address: int, size: int, signed: bool) -> int:
        return int.from_bytes(self._pages.read(address, size), "little", signed=signed)

    def write_uint(self, address: int, value: int, size: int = 8) -> None:
        self._pages.write(address, (value & ((1 << size * 8) - 1)).to_bytes(size, "little"))

    def read_cstr(self, address: int, limit: int = 4096) -> bytes:
        """Bytes up to NUL, at most ``limit``."""
        parts: list[bytes] = []
        while limit > 0:
            count = min(limit, PAGE_SIZE - (address & (PAGE_SIZE - 1)))
            chunk = self._pages.read(address, count)
            end = chunk.find(b"\0")
            if end >= 0:
                return b"".join([*parts, chunk[:end]])
            parts.append(chunk)
            address += count
            limit -= count
        return b"".join(parts)

    def view(self, struct_name: str, address: int) -> View:
        return View(self, struct_name, address)

    def mapped(self, address: int) -> bool:
        """Whether there is memory at an address."""
        return self._pages.physical(address) is not None

    def in_kernel_text(self, address: int) -> bool:
        """Whether an address lies in the kernel's own code (or in kobox's stubs), not in a module's."""
        start, end = self.machine.pages.stable
        base = self.image.layout.virt_base
        return base <= address < base + end and (address >= base + start or address >= self.machine.area.mailbox_addr)

    # -- calls --------------------------------------------------------------------------------------------------

    def call(self, function: str | int, *arguments: int) -> int:
        """Call guest code in a guest task; returns the 64-bit result. ``GuestError`` when the task died in it."""
        address = self.symbol(function) if isinstance(function, str) else function
        return self.tasks.call(address, *arguments)

    def call_int(self, function: str | int, *arguments: int) -> int:
        """As ``call`` for a function that returns ``int``."""
        value = self.call(function, *arguments) & 0xFFFF_FFFF
        return value - (1 << 32) if value >> 31 else value

    def call_long(self, function: str | int, *arguments: int) -> int:
        """As ``call`` for a function that returns ``long`` or a pointer that may be an ``ERR_PTR``."""
        value = self.call(function, *arguments)
        return value - (1 << 64) if value >> 63 else value

    def percpu(self, name: str) -> int:
        """Address of a per-CPU variable on the one CPU."""
        offset = self.read_uint(self.symbol("__per_cpu_offset"))
        return (self.symbol(name) + offset) & 0xFFFF_FFFF_FFFF_FFFF

    @property
    def current(self) -> int:
        """The ``task_struct`` that runs now. Valid once the per-CPU areas are set up."""
        if self._current_at == 0:
            if self.has("pcpu_hot"):
                self._current_at = self.percpu("pcpu_hot") + self.layouts.offset("pcpu_hot", "current_task")
            else:
                self._current_at = self.percpu("current_task")
        return self.read_uint(self._current_at)


def signed64(value: int) -> int:
    """A 64-bit register as a signed number."""
    return value - (1 << 64) if value >> 63 else value


def errno_of(value: int) -> int:
    """The positive errno in a 64-bit result, or 0."""
    number = -signed64(value)
    return number if 0 < number <= 4095 else 0
