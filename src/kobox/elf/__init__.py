"""Bytes to records: any ELF file, relocatable ones above all. No kernel, no CPU, nothing about modules (see ``ko``).

Follows the System V ABI's generic part and its x86-64 supplement; 32-bit and big-endian files are read as well.
"""

from __future__ import annotations

from kobox.elf.constants import EM, ET, R_X86_64, SHF, SHN, SHT, STB, STT, STV, name_of, relocation_name
from kobox.elf.file import ElfFile, Header, Section, parse
from kobox.elf.gate import Buffer, Gate, StringTable
from kobox.elf.symbols import Relocations, Symbol, SymbolTable

__all__ = [
    "EM",
    "ET",
    "R_X86_64",
    "SHF",
    "SHN",
    "SHT",
    "STB",
    "STT",
    "STV",
    "Buffer",
    "ElfFile",
    "Gate",
    "Header",
    "Relocations",
    "Section",
    "StringTable",
    "Symbol",
    "SymbolTable",
    "name_of",
    "parse",
    "relocation_name",
]
