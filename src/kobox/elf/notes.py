"""Notes: small records of an owner's name, a type and bytes, in sections of type ``NOTE``."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from kobox.elf.constants import SHT
from kobox.elf.file import ElfFile, Section
from kobox.elf.gate import Gate, text

_HEADS = {order: Struct(f"{order}III") for order in "<>"}
_NT_GNU_BUILD_ID = 3


class Note(NamedTuple):
    """One note: who defines ``type`` (``GNU``, ``Linux``), and its bytes."""

    owner: str
    type: int
    desc: bytes


def notes_of(elf: ElfFile, section: Section) -> Iterator[Note]:
    """The notes of one section; each field is padded to 4 bytes."""
    place = f"section {section.index} ({section.name})"
    gate, head, at = Gate(elf.name, elf.bytes_of(section)), _HEADS[elf.layout.order], 0
    while at < gate.size:
        name_size, desc_size, kind = gate.unpack(head, at, place)
        at += head.size
        owner = text(gate.take(at, name_size, place)).rstrip("\0")
        at += -(-name_size // 4) * 4
        yield Note(owner, kind, bytes(gate.take(at, desc_size, place)))
        at += -(-desc_size // 4) * 4


def build_id(elf: ElfFile) -> str | None:
    """The GNU build id in hex: the same for a file and its separate debug file."""
    section = elf.section(".note.gnu.build-id")
    if section is None or section.type != SHT.NOTE:
        return None
    for note in notes_of(elf, section):
        if note.owner == "GNU" and note.type == _NT_GNU_BUILD_ID:
            return note.desc.hex()
    return None
