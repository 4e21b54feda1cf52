"""Numbers of the ELF specification and the x86-64 supplement, without their C prefix: ``SHT.RELA``, ``STB.WEAK``.

Plain classes of integers, because an ``enum`` costs more to import than a module costs to parse. ``name_of`` turns a
number back into its name for people.
"""

from __future__ import annotations

from typing import Final


class ET:
    """``e_type``: a module is ``REL``."""

    NONE: Final = 0
    REL: Final = 1
    EXEC: Final = 2
    DYN: Final = 3
    CORE: Final = 4


class EM:
    """``e_machine``: what Linux distributions build modules for."""

    NONE: Final = 0
    SPARC: Final = 2
    I386: Final = 3
    M68K: Final = 4
    MIPS: Final = 8
    PARISC: Final = 15
    PPC: Final = 20
    PPC64: Final = 21
    S390: Final = 22
    ARM: Final = 40
    SH: Final = 42
    SPARCV9: Final = 43
    X86_64: Final = 62
    AARCH64: Final = 183
    RISCV: Final = 243
    LOONGARCH: Final = 258
    ALPHA: Final = 0x9026


class SHT:
    """``sh_type``."""

    NULL: Final = 0
    PROGBITS: Final = 1
    SYMTAB: Final = 2
    STRTAB: Final = 3
    RELA: Final = 4
    HASH: Final = 5
    DYNAMIC: Final = 6
    NOTE: Final = 7
    NOBITS: Final = 8
    REL: Final = 9
    SHLIB: Final = 10
    DYNSYM: Final = 11
    INIT_ARRAY: Final = 14
    FINI_ARRAY: Final = 15
    PREINIT_ARRAY: Final = 16
    GROUP: Final = 17
    SYMTAB_SHNDX: Final = 18
    X86_64_UNWIND: Final = 0x70000001


class SHF:
    """``sh_flags``, a bit mask."""

    WRITE: Final = 0x1
    ALLOC: Final = 0x2
    EXECINSTR: Final = 0x4
    MERGE: Final = 0x10
    STRINGS: Final = 0x20
    INFO_LINK: Final = 0x40
    LINK_ORDER: Final = 0x80
    GROUP: Final = 0x200
    TLS: Final = 0x400
    COMPRESSED: Final = 0x800
    RELA_LIVEPATCH: Final = 0x00100000


class SHN:
    """Special section indices in ``st_shndx``."""

    UNDEF: Final = 0
    LORESERVE: Final = 0xFF00
    LIVEPATCH: Final = 0xFF20
    ABS: Final = 0xFFF1
    COMMON: Final = 0xFFF2
    XINDEX: Final = 0xFFFF


class STB:
    """Binding: the upper half of ``st_info``."""

    LOCAL: Final = 0
    GLOBAL: Final = 1
    WEAK: Final = 2


class STT:
    """Type: the lower half of ``st_info``."""

    NOTYPE: Final = 0
    OBJECT: Final = 1
    FUNC: Final = 2
    SECTION: Final = 3
    FILE: Final = 4
    COMMON: Final = 5
    TLS: Final = 6


class STV:
    """Visibility: the low two bits of ``st_other``."""

    DEFAULT: Final = 0
    INTERNAL: Final = 1
    HIDDEN: Final = 2
    PROTECTED: Final = 3


class R_X86_64:
    """Relocation types of x86-64."""

    NONE: Final = 0
    ABS64: Final = 1
    PC32: Final = 2
    GOT32: Final = 3
    PLT32: Final = 4
    COPY: Final = 5
    GLOB_DAT: Final = 6
    JUMP_SLOT: Final = 7
    RELATIVE: Final = 8
    GOTPCREL: Final = 9
    ABS32: Final = 10
    ABS32S: Final = 11
    ABS16: Final = 12
    PC16: Final = 13
    ABS8: Final = 14
    PC8: Final = 15
    PC64: Final = 24


def name_of(numbers: type, value: int) -> str:
    """The name that ``value`` has in one of the classes above, else the number in hex."""
    for name, number in vars(numbers).items():
        if number == value and name.isupper():
            return name
    return hex(value)


_X86_64_SPELLING: Final = {"ABS64": "64", "ABS32": "32", "ABS32S": "32S", "ABS16": "16", "ABS8": "8"}


def relocation_name(machine: int, kind: int) -> str:
    """As ``readelf`` spells it for x86-64 (``R_X86_64_32S``); elsewhere the number."""
    if machine != EM.X86_64:
        return hex(kind)
    name = name_of(R_X86_64, kind)
    return f"R_X86_64_{_X86_64_SPELLING.get(name, name)}" if not name.startswith("0x") else name
