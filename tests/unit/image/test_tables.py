"""Tables of the kernel's build: entries are distances from their own places."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import pytest

from image_builders import BtfBuilder
from kobox.image import tables
from kobox.image.btf import Btf

BASE = 0x1000


@dataclass
class FakeKernel:
    """Memory from ``BASE`` on, and symbols; what ``kobox.image.tables`` reads of an image."""

    memory: bytes
    names: dict[str, int]
    layout: object = None
    has_format: bool = False

    @property
    def symbols(self):
        kernel = self

        class Names(dict):
            def exactly_at(self, address: int) -> tuple[str, ...]:
                return tuple(name for name, place in kernel.names.items() if place == address)

        return Names(self.names)

    @property
    def btf(self) -> Btf:
        types = BtfBuilder()
        number, short = types.int("int", 4, signed=True), types.int("short unsigned int", 2)
        distances = ["bug_addr_disp", *(["format_disp"] if self.has_format else []), "file_disp"]
        members = [(name, number, 32 * place) for place, name in enumerate(distances)]
        end = 32 * len(members)
        types.struct("bug_entry", end // 8 + 4, [*members, ("line", short, end), ("flags", short, end + 16)])
        types.struct("orc_entry", 6, [("sp_offset", short, 0)])
        return Btf(types.build())

    def read(self, address: int, size: int) -> bytes:
        return self.memory[address - BASE : address - BASE + size]


def test_initcalls_have_level_name_and_order() -> None:
    memory = struct.pack("<iii", 0x100, 0x100 - 4, 0x200 - 8)
    starts = {"__initcall_start": 0, "__initcall0_start": 4, "__initcall1_start": 4, "__initcall2_start": 12}
    names = {name: BASE + place for name, place in starts.items()} | {"first": BASE + 0x100, "other": BASE + 0x200}
    found = list(tables.initcalls(FakeKernel(memory, names)))
    assert [(call.level, call.name, call.address, call.place) for call in found] == [
        ("early", "first", BASE + 0x100, BASE),
        ("core", "first", BASE + 0x100, BASE + 4),
        ("core", "other", BASE + 0x200, BASE + 8),
    ]


def test_an_initcall_without_a_name_has_its_address() -> None:
    kernel = FakeKernel(struct.pack("<i", 0x100), {"__initcall_start": BASE, "__initcall0_start": BASE + 4})
    assert [call.name for call in tables.initcalls(kernel)] == ["0x1100"]


def test_fixups_are_relative_to_their_own_fields() -> None:
    memory = struct.pack("<iiI", 0x100, 0x200, 7)
    kernel = FakeKernel(memory, {"__start___ex_table": BASE, "__stop___ex_table": BASE + 12})
    assert list(tables.exception_table(kernel)) == [tables.Fixup(BASE + 0x100, BASE + 4 + 0x200, 7)]


def test_a_bug_site_has_file_and_line() -> None:
    memory = struct.pack("<iiHH", 0x500, 12 - 4, 485, 9) + b"mm/slab.c\0" + bytes(60)
    kernel = FakeKernel(memory, {"__start___bug_table": BASE, "__stop___bug_table": BASE + 12})
    assert list(tables.bug_table(kernel)) == [tables.BugSite(BASE + 0x500, "mm/slab.c", 485, 9, "")]


def test_a_bug_site_of_newer_kernels_has_its_format() -> None:
    memory = struct.pack("<iiiHH", 0x500, 16 - 4, 0, 17, 1) + b"no %s here\0" + bytes(60)
    kernel = FakeKernel(memory, {"__start___bug_table": BASE, "__stop___bug_table": BASE + 16}, has_format=True)
    assert list(tables.bug_table(kernel)) == [tables.BugSite(BASE + 0x500, "", 17, 1, "no %s here")]


@pytest.mark.parametrize(
    ("address", "found"),
    [(BASE + 0xFF, None), (BASE + 0x100, b"AAAAAA"), (BASE + 0x17F, b"AAAAAA"), (BASE + 0x180, b"BBBBBB")],
)
def test_the_unwind_entry_is_the_last_one_not_behind_the_address(address: int, found: bytes | None) -> None:
    memory = struct.pack("<ii", 0x100, 0x180 - 4) + b"AAAAAABBBBBB"
    names = {"__start_orc_unwind_ip": BASE, "__stop_orc_unwind_ip": BASE + 8, "__start_orc_unwind": BASE + 8}
    entry = tables.unwind_entry(FakeKernel(memory, names), address)
    assert (entry.raw if entry else None) == found


def test_zeros_behind_the_lock_sites_are_none() -> None:
    kernel = FakeKernel(struct.pack("<iii", 0x100, 0, 0), {"__smp_locks": BASE, "__smp_locks_end": BASE + 12})
    assert list(tables.smp_locks(kernel)) == [BASE + 0x100]


def test_a_kernel_without_a_table_has_an_empty_one() -> None:
    kernel = FakeKernel(b"", {})
    assert list(tables.exception_table(kernel)) == []
    assert list(tables.smp_locks(kernel)) == []
    assert tables.unwind_entry(kernel, BASE) is None
