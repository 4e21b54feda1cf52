"""A vmlinux becomes a layout and a flat file that holds each byte at its physical place."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from image_builders import PHYS_BASE, TEXT_BASE, KernelBuilder
from kobox.errors import BadFile, NotModelled
from kobox.image.vmlinux import Layout, read_layout, write_flat


@pytest.fixture(scope="module")
def vmlinux() -> bytes:
    return KernelBuilder(bss=0x40000).build()


def test_bases_come_from_the_segments(vmlinux: bytes) -> None:
    layout = read_layout(vmlinux, "vmlinux")
    assert (layout.phys_base, layout.virt_base, layout.entry) == (PHYS_BASE, TEXT_BASE - PHYS_BASE, PHYS_BASE)
    assert layout.text_base == TEXT_BASE


def test_the_segment_linked_at_zero_is_the_per_cpu_one(vmlinux: bytes) -> None:
    layout = read_layout(vmlinux, "vmlinux")
    assert layout.percpu is not None
    assert layout.flat_offset(0x40) == layout.percpu.paddr - PHYS_BASE + 0x40


def test_the_flat_file_has_text_zeros_for_bss_then_per_cpu_data(vmlinux: bytes, tmp_path: Path) -> None:
    layout = read_layout(vmlinux, "vmlinux")
    write_flat(vmlinux, layout, tmp_path / "flat")
    flat = (tmp_path / "flat").read_bytes()
    text, percpu = layout.segments
    assert len(flat) == layout.flat_size == text.size + percpu.size
    assert flat[: text.file_size] == vmlinux[text.file_off : text.file_off + text.file_size]
    assert not any(flat[text.file_size : text.size])
    assert flat[text.size :] == bytes([0xCC]) * 0x1000


def test_zeros_become_holes(tmp_path: Path) -> None:
    builder = KernelBuilder(bss=16 << 20)
    layout = read_layout(data := builder.build(), "vmlinux")
    write_flat(data, layout, tmp_path / "flat")
    assert os.stat(tmp_path / "flat").st_blocks * 512 < layout.flat_size // 2


def test_addresses_outside_have_no_offset(vmlinux: bytes) -> None:
    layout = read_layout(vmlinux, "vmlinux")
    assert layout.flat_offset(TEXT_BASE - 1) is None
    assert layout.flat_offset(TEXT_BASE + layout.flat_size) is None
    assert layout.flat_offset(TEXT_BASE + layout.flat_size - 4, 8) is None


def test_sections_that_are_in_memory_are_known_by_name(vmlinux: bytes) -> None:
    layout = read_layout(vmlinux, "vmlinux")
    assert [section.name for section in layout.sections] == [".text", ".data..percpu", ".notes"]
    assert layout.section(".shstrtab") is None


def test_the_record_survives_json(vmlinux: bytes) -> None:
    layout = read_layout(vmlinux, "vmlinux")
    assert Layout.from_facts(json.loads(json.dumps(layout.to_facts()))) == layout


@pytest.mark.parametrize("size", [0, 10, 63, 100, 0x1100])
def test_a_cut_file_is_refused(vmlinux: bytes, size: int) -> None:
    with pytest.raises(BadFile):
        read_layout(vmlinux[:size], "vmlinux")


def test_another_machine_is_not_modelled(vmlinux: bytes) -> None:
    other = bytearray(vmlinux)
    struct.pack_into("<H", other, 18, 183)
    with pytest.raises(NotModelled, match="64-bit x86"):
        read_layout(bytes(other), "vmlinux")


def test_segments_that_disagree_are_refused(vmlinux: bytes) -> None:
    other = bytearray(vmlinux)
    struct.pack_into("<Q", other, 64 + 56 + 16, TEXT_BASE + 0x100000)
    with pytest.raises(BadFile, match="disagree"):
        read_layout(bytes(other), "vmlinux")


def test_a_segment_larger_than_memory_is_refused(vmlinux: bytes) -> None:
    other = bytearray(vmlinux)
    struct.pack_into("<Q", other, 64 + 40, 1 << 40)
    with pytest.raises(BadFile, match="no kernel lies like this"):
        read_layout(bytes(other), "vmlinux")
