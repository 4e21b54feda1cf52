"""A ``vmlinux``: segments and sections as records, and the kernel laid out flat as it lies in physical memory.

The flat file starts at the lowest physical address of a loadable segment and ends, page aligned, behind the highest;
what the ELF file does not fill (bss) is a hole that reads as zeros. One ``mmap`` of it is the kernel's memory. The
per-CPU segment of kernels up to 6.14 is linked at virtual address 0 and lies in the flat file at its physical address.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kobox.elf import SHF, ElfFile, Gate, parse
from kobox.elf.constants import EM, ET
from kobox.errors import BadFile, NotModelled

PAGE = 4096
_PHDR = struct.Struct("<IIQQQQQQ")
_PT_LOAD = 1
_HUGE = 1 << 32
_ZEROS = bytes(1 << 16)


class Segment(NamedTuple):
    """One loadable piece: ``size`` in memory, of which ``file_size`` bytes are at ``file_off``; flags R 4, W 2, X 1."""

    vaddr: int
    paddr: int
    size: int
    flags: int
    file_off: int
    file_size: int


class KernelSection(NamedTuple):
    """An ELF section that is in memory. ``type`` and ``flags`` are the ELF's own numbers."""

    name: str
    type: int
    flags: int
    addr: int
    size: int


class Layout(NamedTuple):
    """Where everything is. ``virt_base`` is virtual minus physical address of the kernel map; ``flat_size`` bytes of
    flat file begin at physical address ``phys_base``. ``percpu`` is the segment linked at 0, or None."""

    entry: int
    phys_base: int
    virt_base: int
    flat_size: int
    segments: tuple[Segment, ...]
    percpu: Segment | None
    sections: tuple[KernelSection, ...]

    @property
    def text_base(self) -> int:
        """Virtual address of the first byte of the kernel map (``_text``)."""
        return self.phys_base + self.virt_base

    def flat_offset(self, address: int, size: int = 1) -> int | None:
        """Offset in the flat file of a virtual address (per-CPU ones are those of the segment linked at 0)."""
        for segment in self.segments:
            if segment.vaddr <= address and address + size <= segment.vaddr + segment.size:
                return address - segment.vaddr + segment.paddr - self.phys_base
        offset = address - self.text_base
        return offset if offset >= 0 and offset + size <= self.flat_size else None

    def section(self, name: str) -> KernelSection | None:
        """The section of that name, None when there is none."""
        return next((section for section in self.sections if section.name == name), None)

    def to_facts(self) -> dict[str, Any]:
        """The record as JSON's types; ``from_facts`` is its inverse."""
        return {
            "entry": self.entry,
            "phys_base": self.phys_base,
            "virt_base": self.virt_base,
            "flat_size": self.flat_size,
            "segments": [list(segment) for segment in self.segments],
            "percpu": self.segments.index(self.percpu) if self.percpu else None,
            "sections": [list(section) for section in self.sections],
        }

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Layout:
        segments = tuple(Segment(*values) for values in facts["segments"])
        percpu = None if facts["percpu"] is None else segments[facts["percpu"]]
        sections = tuple(KernelSection(*values) for values in facts["sections"])
        return cls(
            facts["entry"], facts["phys_base"], facts["virt_base"], facts["flat_size"], segments, percpu, sections
        )


def read_layout(data: bytes, name: str) -> Layout:
    """Segments and sections of a vmlinux; BadFile when it is none, or cut short."""
    elf = parse(data, name)
    _check(elf)
    segments = tuple(_segments(elf, Gate(name, data)))
    if not segments:
        raise BadFile(name, "program headers", "no loadable segment")
    kernel = [segment for segment in segments if segment.vaddr]
    percpu = next((segment for segment in segments if not segment.vaddr), None)
    bases = {segment.vaddr - segment.paddr for segment in kernel}
    if len(bases) != 1:
        raise BadFile(name, "program headers", "segments disagree on virtual minus physical", len(bases), 1)
    phys_base = min(segment.paddr for segment in segments)
    end = max(segment.paddr + segment.size for segment in segments)
    flat_size = -(-(end - phys_base) // PAGE) * PAGE
    if phys_base % PAGE or flat_size > _HUGE:
        raise BadFile(name, "program headers", "no kernel lies like this", phys_base)
    sections = tuple(
        KernelSection(section.name, section.type, section.flags, section.addr, section.size)
        for section in elf.sections
        if section.flags & SHF.ALLOC
    )
    return Layout(elf.header.e_entry, phys_base, bases.pop(), flat_size, segments, percpu, sections)


def write_flat(data: bytes, layout: Layout, path: Path) -> None:
    """Write the flat file; pages of zeros become holes."""
    view = memoryview(data)
    with open(path, "wb") as handle:
        handle.truncate(layout.flat_size)
        for segment in layout.segments:
            base = segment.paddr - layout.phys_base
            for start, end in _filled(view[segment.file_off : segment.file_off + segment.file_size]):
                piece = view[segment.file_off + start : segment.file_off + end]
                os.pwrite(handle.fileno(), piece, base + start)


def _check(elf: ElfFile) -> None:
    header = elf.header
    if header.e_machine != EM.X86_64 or elf.layout.bits != 64:
        raise NotModelled(f"{elf.name}: ELF header: only 64-bit x86 kernels are supported (machine {header.e_machine})")
    if header.e_type not in (ET.EXEC, ET.DYN):
        raise BadFile(elf.name, "ELF header", "not an executable", header.e_type, ET.EXEC)
    if header.e_phnum and header.e_phentsize != _PHDR.size:
        raise BadFile(elf.name, "ELF header", "size of a program header", header.e_phentsize, _PHDR.size)


def _segments(elf: ElfFile, gate: Gate) -> Iterator[Segment]:
    for number in range(elf.header.e_phnum):
        place = f"program header {number}"
        row = gate.unpack(_PHDR, elf.header.e_phoff + number * _PHDR.size, place)
        kind, flags, offset, vaddr, paddr, file_size, size, _ = row
        if kind != _PT_LOAD or not size:
            continue
        if file_size > size:
            raise BadFile(elf.name, place, "more bytes in the file than in memory", file_size, size)
        gate.take(offset, file_size, place)
        yield Segment(vaddr, paddr, size, flags, offset, file_size)


def _filled(view: memoryview) -> Iterator[tuple[int, int]]:
    """Runs of bytes that are not whole 64 KiB blocks of zeros."""
    start = None
    for at in range(0, len(view), len(_ZEROS)):
        block = view[at : at + len(_ZEROS)]
        if block == _ZEROS[: len(block)]:
            if start is not None:
                yield start, at
                start = None
        elif start is None:
            start = at
    if start is not None:
        yield start, len(view)
