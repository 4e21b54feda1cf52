"""UEFI as a booting kernel meets it: system table, memory map, and runtime services that Python answers.

The kernel comes from its EFI stub with boot services gone: what it finds is laid into low memory (``place``), the
services are guest code of twelve bytes that leads into a trap. So ``efi_init``, ``load_uefi_certs``, lockdown by Secure
Boot and efivarfs are the kernel's own. Follows the UEFI specification 2.10 (4.3, 8) and the kernel's zero-page.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from kobox.bringup import acpi, smbios
from kobox.efi.siglist import SHIM
from kobox.efi.variables import SECURE_BOOT, SETUP_MODE, Attribute, Key, Variables, from_rows, keep, shim
from kobox.errors import GuestError
from kobox.machine.memory import PAGE_SIZE, PhysicalMemory
from kobox.machine.unicorn_abi import REG

if TYPE_CHECKING:
    from kobox.kernel.guest import Guest

START: Final = 0x93000
"""Where the firmware's own pages begin: tables, code, memory map."""
_TABLES, _CODE, _MAP, END = START, START + PAGE_SIZE, START + 2 * PAGE_SIZE, START + 3 * PAGE_SIZE

_HEADER = struct.Struct("<8sIIII")
_DESCRIPTOR = struct.Struct("<IIQQQQ")
_RESERVED_TYPE, _LOADER_DATA, _BOOT_DATA, _CODE_TYPE, _DATA_TYPE, _CONVENTIONAL = 0, 2, 4, 5, 6, 7
_WRITE_BACK, _AT_RUNTIME = 8, 1 << 63
_ACPI_20 = UUID("8868e871-e4f1-11d3-bc22-0080c73c8881")
_SMBIOS = UUID("eb9d2d31-2d88-11d3-9a16-0090273fc14d")
_MOK_VARIABLES = UUID("c451ed2b-9694-45d3-baba-ed9f8988a389")
_REVISION = 2 << 16 | 70

_ERROR = 1 << 63
SUCCESS, INVALID_PARAMETER, UNSUPPORTED, BUFFER_TOO_SMALL, WRITE_PROTECTED, NOT_FOUND = (
    0, _ERROR | 2, _ERROR | 3, _ERROR | 5, _ERROR | 8, _ERROR | 14,
)  # fmt: skip

_SERVICES = (
    "GetTime", "SetTime", "GetWakeupTime", "SetWakeupTime", "SetVirtualAddressMap", "ConvertPointer", "GetVariable",
    "GetNextVariableName", "SetVariable", "GetNextHighMonotonicCount", "ResetSystem", "UpdateCapsule",
    "QueryCapsuleCapabilities", "QueryVariableInfo",
)  # fmt: skip
"""In the order of the runtime services table."""

_SECURE_BOOT_UNSET, _SECURE_BOOT_OFF, _SECURE_BOOT_ON = 0, 2, 3
_STORAGE, _LARGEST = 256 << 10, 64 << 10
"""What the firmware says it has room for: all variables, and one."""
_SHADOW: Final = 0x28
"""From the stack pointer at entry to the fifth argument: return address and the callee's home area."""


def secure_boot_mode(variables: Variables) -> int:
    """What the kernel's EFI stub finds out and leaves in the boot parameters: Secure Boot counts when the firmware is
    out of setup mode and shim was not told to leave validation off."""
    if SECURE_BOOT not in variables:
        return _SECURE_BOOT_UNSET
    if not variables.flag(SECURE_BOOT) or variables.flag(SETUP_MODE) or variables.flag(shim("MokSBStateRT")):
        return _SECURE_BOOT_OFF
    return _SECURE_BOOT_ON


class Region(NamedTuple):
    """A range of physical memory, [start, end), and what the memory map calls it."""

    start: int
    end: int
    kind: int
    attributes: int = _WRITE_BACK


def mok_table(variables: Variables) -> bytes:
    """The table in which shim hands over its lists, whole pages: name, size and value of each, then an empty entry.
    Kernels believe it rather than variables, and only it makes them trust owners' keys for modules."""
    table = b"".join(
        _MOK_ENTRY.pack(key.name.encode("latin-1", "replace"), len(one.value)) + one.value
        for key, one in sorted(variables.items())
        if key.guid == SHIM and key.name in _HANDED_OVER
    )
    table += _MOK_ENTRY.pack(b"", 0)
    return table.ljust(-(-len(table) // PAGE_SIZE) * PAGE_SIZE, b"\0")


_MOK_ENTRY = struct.Struct("<256sQ")
_HANDED_OVER = frozenset({
    "MokListRT", "MokListXRT", "MokSBStateRT", "MokIgnoreDB", "SbatLevelRT", "MokListTrustedRT", "MokPolicyRT",
})  # fmt: skip


def memory_map(low_end: int, high_start: int, ram_size: int, reserved: int) -> list[Region]:
    """``reserved`` bytes at the end of memory hold the table of shim's lists."""
    top = ram_size - reserved
    return [
        Region(0, START, _CONVENTIONAL),
        Region(_TABLES, _CODE, _DATA_TYPE, _WRITE_BACK | _AT_RUNTIME),
        Region(_CODE, _MAP, _CODE_TYPE, _WRITE_BACK | _AT_RUNTIME),
        Region(_MAP, END, _RESERVED_TYPE),
        Region(END, low_end, _CONVENTIONAL),
        Region(acpi.ROOT_POINTER_ADDR & ~(PAGE_SIZE - 1), high_start, _RESERVED_TYPE),
        Region(high_start, top, _CONVENTIONAL),
        Region(top, ram_size, _DATA_TYPE, _WRITE_BACK | _AT_RUNTIME),
    ]


def place(memory: PhysicalMemory, regions: Sequence[Region], mok: bytes) -> bytes:
    """Lay the tables and the map into memory, shim's lists into the last region; the value is ``efi_info`` of the boot
    parameters."""
    memory.write(regions[-1].start, mok)
    runtime = _TABLES + 0x100
    tables = _TABLES + 0x200
    vendor = _TABLES + 0x300
    configuration = (
        (_ACPI_20, acpi.ROOT_POINTER_ADDR),
        (_SMBIOS, smbios.ENTRY_POINT_ADDR),
        (_MOK_VARIABLES, regions[-1].start),
    )
    memory.write(
        _TABLES,
        _HEADER.pack(b"IBI SYST", _REVISION, 0x78, 0, 0)
        + struct.pack("<QII6QQQQQ", vendor, 1, 0, *[0] * 6, runtime, 0, len(configuration), tables),
    )
    services = [_CODE + 16 * number for number in range(len(_SERVICES))]
    memory.write(runtime, _HEADER.pack(b"RUNTSERV", _REVISION, 0x88, 0, 0) + struct.pack("<14Q", *services))
    memory.write(tables, b"".join(guid.bytes_le + struct.pack("<Q", at) for guid, at in configuration))
    memory.write(vendor, "kobox\0".encode("utf-16-le"))
    described = b"".join(
        _DESCRIPTOR.pack(region.kind, 0, region.start, 0, (region.end - region.start) // PAGE_SIZE, region.attributes)
        for region in regions
    )
    memory.write(_MAP, described)
    return struct.pack("<4sIIIIIII", b"EL64", _TABLES, _DESCRIPTOR.size, 1, _MAP, len(described), 0, 0)


class RuntimeServices:
    """The services of one guest, over the variables that it was booted with."""

    def __init__(self, guest: Guest, rows: object) -> None:
        self._guest = guest
        self._rows = rows
        self.variables = from_rows(rows)
        self._folder = ""
        area = guest.machine.area
        self._stubs = [area.stub(f"EFI {name}", self._handler(name)) for name in _SERVICES]

    def keep_in(self, folder: str) -> None:
        """From now on what the guest sets is kept in this directory, as flash memory would."""
        self._folder = folder

    def restore(self) -> None:
        """After a reset: the variables of the boot again."""
        self.variables = from_rows(self._rows)

    def place_code(self) -> None:
        """``movabs rax, stub; jmp rax`` for each service, where the table says that it is."""
        code = b"".join(
            (b"\x48\xb8" + struct.pack("<Q", stub) + b"\xff\xe0").ljust(16, b"\xcc") for stub in self._stubs
        )
        self._guest.machine.memory.write(_CODE, code)

    def _handler(self, name: str) -> Callable[[], None]:
        services: dict[str, Callable[[int, int, int, int, int], int]] = {
            "SetVirtualAddressMap": self._map,
            "GetVariable": self._get,
            "GetNextVariableName": self._next,
            "SetVariable": self._set,
            "QueryVariableInfo": self._info,
        }
        serve = services.get(name, self._lack)

        def handle() -> None:
            guest = self._guest
            _, _, rdx, rcx, r8, r9, rsp = guest.machine.area.arguments()
            try:
                status = serve(rcx, rdx, r8, r9, rsp)
            except GuestError:
                status = INVALID_PARAMETER
            guest.machine.cpu.write(REG["rax"], status)

        return handle

    def _map(self, *_: int) -> int:
        return SUCCESS  # the code does not care where it runs

    def _lack(self, *_: int) -> int:
        return UNSUPPORTED

    def _get(self, name: int, guid: int, attributes: int, size: int, rsp: int) -> int:
        guest = self._guest
        found = self.variables.get(self._key(name, guid))
        if found is None or not found.attributes & Attribute.RUNTIME_ACCESS:
            return NOT_FOUND
        buffer = guest.read_uint(rsp + _SHADOW)
        room = guest.read_uint(size)
        guest.write_uint(size, len(found.value))
        if attributes:
            guest.write_uint(attributes, int(found.attributes), 4)
        if room < len(found.value):
            return BUFFER_TOO_SMALL
        guest.write(buffer, found.value)
        return SUCCESS

    def _next(self, size: int, name: int, guid: int, _: int, __: int) -> int:
        guest = self._guest
        shown = [key for key, one in self.variables.items() if one.attributes & Attribute.RUNTIME_ACCESS]
        at = 0
        if guest.read_uint(name, 2):
            present = self._key(name, guid)
            if present not in shown:
                return INVALID_PARAMETER
            at = shown.index(present) + 1
        if at == len(shown):
            return NOT_FOUND
        text = (shown[at].name + "\0").encode("utf-16-le")
        room = guest.read_uint(size)
        guest.write_uint(size, len(text))
        if room < len(text):
            return BUFFER_TOO_SMALL
        guest.write(name, text)
        guest.write(guid, shown[at].guid.bytes_le)
        return SUCCESS

    def _set(self, name: int, guid: int, attributes: int, size: int, rsp: int) -> int:
        """Set, append to or remove; what needs a signature of its owner is refused, as a firmware without the keys
        would."""
        wanted = Attribute(attributes & 0xFFFF_FFFF)
        key = self._key(name, guid)
        found = self.variables.get(key)
        if not key.name or size > _LARGEST:
            return INVALID_PARAMETER
        authenticated = Attribute.TIME_BASED_AUTHENTICATED_WRITE_ACCESS
        if (wanted | (found.attributes if found else Attribute(0))) & authenticated or key in _READ_ONLY:
            return WRITE_PROTECTED
        if found is not None and not found.attributes & Attribute.RUNTIME_ACCESS:
            return WRITE_PROTECTED
        value = self._guest.read(self._guest.read_uint(rsp + _SHADOW), size) if size else b""
        if wanted & Attribute.APPEND_WRITE and found is not None:
            value = found.value + value
        if found is None and not value:
            return NOT_FOUND
        self.variables.store(key, value, wanted & ~Attribute.APPEND_WRITE)
        if self._folder:
            keep(self._folder, key, self.variables.get(key))
        return SUCCESS

    def _info(self, attributes: int, storage: int, remaining: int, largest: int, _: int) -> int:
        used = sum(len(one.value) + 2 * len(key.name) for key, one in self.variables.items())
        for address, value in ((storage, _STORAGE), (remaining, max(0, _STORAGE - used)), (largest, _LARGEST)):
            self._guest.write_uint(address, value)
        return SUCCESS

    def _key(self, name: int, guid: int) -> Key:
        guest = self._guest
        text = bytearray()
        while (unit := guest.read(name + len(text), 2)) != b"\0\0":
            text += unit
            if len(text) > 2048:
                raise GuestError("a variable's name without an end")
        return Key(text.decode("utf-16-le", "replace"), UUID(bytes_le=bytes(guest.read(guid, 16))))


_READ_ONLY = frozenset({SECURE_BOOT, SETUP_MODE})
