"""The four shapes of an ELF file (32 or 64 bit, little or big endian) as ``struct`` layouts, and which one a file has.

The kernel never looks at ``e_ident`` beyond the magic, so a module whose class or data byte is damaged still loads. The
shape is therefore told by what the loader does read: ``e_type`` gives the byte order, ``e_machine`` the word size; the
identification bytes decide only where those leave it open.
"""

from __future__ import annotations

import sys
from struct import Struct
from typing import Final, Literal, NamedTuple

from kobox.elf.constants import EM

MAGIC: Final = b"\x7fELF"
_EI_CLASS, _EI_DATA = 4, 5
_CLASS_32, _DATA_BIG = 1, 2
_WIDE_MACHINES: Final = frozenset({EM.X86_64, EM.AARCH64, EM.PPC64, EM.SPARCV9, EM.LOONGARCH, EM.ALPHA})


class Layout(NamedTuple):
    """The records of one shape of ELF. ``native`` shapes can be read in place by ``memoryview.cast``."""

    bits: int
    order: str
    native: bool
    header: Struct
    section: Struct
    symbol: Struct
    rel: Struct
    rela: Struct

    @property
    def byteorder(self) -> Literal["little", "big"]:
        """``order`` as ``int.from_bytes`` wants it."""
        return "little" if self.order == "<" else "big"


def _layout(bits: int, order: str) -> Layout:
    word, signed = ("Q", "q") if bits == 64 else ("I", "i")
    symbol = "IBBHQQ" if bits == 64 else "IIIBBH"
    info = "II" if bits == 64 else "I"
    return Layout(
        bits=bits,
        order=order,
        native=bits == 64 and order == ("<" if sys.byteorder == "little" else ">"),
        header=Struct(f"{order}16sHHI{word * 3}IHHHHHH"),
        section=Struct(f"{order}II{word * 4}II{word * 2}"),
        symbol=Struct(order + symbol),
        rel=Struct(f"{order}{word}{info}"),
        rela=Struct(f"{order}{word}{info}{signed}"),
    )


LAYOUTS: Final = {(bits, order): _layout(bits, order) for bits in (64, 32) for order in "<>"}


def layout_of(start: bytes) -> Layout:
    """The shape of the file whose first bytes (at least 20) are ``start``."""
    order = {b"\1\0": "<", b"\0\1": ">"}.get(start[16:18]) or (">" if start[_EI_DATA] == _DATA_BIG else "<")
    machine = int.from_bytes(start[18:20], "little" if order == "<" else "big")
    narrow = start[_EI_CLASS] == _CLASS_32 and machine not in _WIDE_MACHINES
    return LAYOUTS[32 if narrow else 64, order]
