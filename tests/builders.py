"""Modules made in memory: a relocatable ELF file said in one expression, for the tests of every room.

    data = KoBuilder("hello").text(b"\\xc3").modinfo(license="GPL").reloc(".text", 0, R_X86_64.PC32, "_printk").build()

Sections, symbols and relocations come out in the order they were said in (locals before globals, as ELF wants it), so
that offsets in a test can be counted. Nothing of kobox is used here: the builder is a second opinion on the format.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

WRITE, ALLOC, EXEC = 1, 2, 4
PROGBITS, SYMTAB, STRTAB, RELA, NOTE, NOBITS, REL = 1, 2, 3, 4, 7, 8, 9
LOCAL, GLOBAL, WEAK = 0, 1, 2
NOTYPE, OBJECT, FUNC, SECTION, FILE = 0, 1, 2, 3, 4
UNDEF, ABS, COMMON = 0, 0xFFF1, 0xFFF2
X86_64_64, X86_64_PC32, X86_64_PLT32 = 1, 2, 4
VERMAGIC = "6.1.0-56-amd64 SMP preempt mod_unload modversions "
MARKER = b"~Module signature appended~\n"


@dataclass
class _Section:
    name: str
    data: bytearray
    type: int = PROGBITS
    flags: int = ALLOC
    align: int = 1
    size: int | None = None
    entsize: int = 0
    link: int = 0
    info: int = 0
    relocs: list[tuple[int, int, str, int]] = field(default_factory=list)


@dataclass
class _Symbol:
    name: str
    section: str | int
    value: int
    size: int
    bind: int
    type: int
    other: int


class KoBuilder:
    """One module in the making. Every method returns the builder; ``build`` gives the bytes, ``write`` a file."""

    def __init__(self, name: str = "built", *, bits: int = 64, order: str = "<", machine: int = 62) -> None:
        self.name, self.bits, self.order, self.machine = name, bits, order, machine
        self._sections: dict[str, _Section] = {}
        self._symbols: dict[str, _Symbol] = {}
        self._tail = b""

    # -- sections ---------------------------------------------------------------------------------------------------

    def section(
        self,
        name: str,
        data: bytes = b"",
        *,
        type: int = PROGBITS,
        flags: int = ALLOC,
        align: int = 1,
        size: int | None = None,
        entsize: int = 0,
        link: int = 0,
        info: int = 0,
    ) -> Self:
        """Any section; said twice, the bytes are appended. ``size`` is for ``NOBITS``, or to lie."""
        if name in self._sections:
            self._sections[name].data += data
        else:
            self._sections[name] = _Section(name, bytearray(data), type, flags, align, size, entsize, link, info)
        return self

    def text(self, code: bytes = b"\xc3", name: str = ".text") -> Self:
        """Executable bytes."""
        return self.section(name, code, flags=ALLOC | EXEC, align=16)

    def init_text(self, code: bytes = b"\x31\xc0\xc3", symbol: str = "init_module") -> Self:
        """``.init.text`` with the module's init function (default: return 0)."""
        return self.text(code, ".init.text").symbol(symbol, ".init.text", size=len(code), type=FUNC)

    def exit_text(self, code: bytes = b"\xc3", symbol: str = "cleanup_module") -> Self:
        """``.exit.text`` with the module's exit function."""
        return self.text(code, ".exit.text").symbol(symbol, ".exit.text", size=len(code), type=FUNC)

    def rodata(self, data: bytes, name: str = ".rodata") -> Self:
        """Read-only bytes."""
        return self.section(name, data, align=8)

    def data(self, data: bytes, name: str = ".data") -> Self:
        """Writable bytes."""
        return self.section(name, data, flags=ALLOC | WRITE, align=8)

    def bss(self, size: int, name: str = ".bss") -> Self:
        """Writable zeros that take no room in the file."""
        return self.section(name, type=NOBITS, flags=ALLOC | WRITE, align=8, size=size)

    def note(self, name: str, owner: bytes, kind: int, desc: bytes) -> Self:
        """A ``NOTE`` section's entry."""
        owner += b"\0"
        head = struct.pack(f"{self.order}III", len(owner), len(desc), kind)
        return self.section(name, head + _padded(owner, 4) + _padded(desc, 4), type=NOTE, align=4)

    # -- symbols and relocations ------------------------------------------------------------------------------------

    def symbol(
        self,
        name: str,
        section: str | int = ".text",
        value: int = 0,
        *,
        size: int = 0,
        bind: int = GLOBAL,
        type: int = NOTYPE,
        other: int = 0,
    ) -> Self:
        """A symbol in a section (by name) or with a special index (``ABS``, ``COMMON``, any number)."""
        self._symbols[name] = _Symbol(name, section, value, size, bind, type, other)
        return self

    def undefined(self, name: str, *, weak: bool = False) -> Self:
        """A symbol that somebody else defines."""
        return self.symbol(name, UNDEF, bind=WEAK if weak else GLOBAL)

    def reloc(self, section: str, offset: int, type: int, symbol: str, addend: int = 0) -> Self:
        """A relocation of ``section``. An unknown symbol becomes an undefined one, a section's name its symbol."""
        if symbol not in self._symbols and symbol not in self._sections:
            self.undefined(symbol)
        self._sections[section].relocs.append((offset, type, symbol, addend))
        return self

    # -- what makes it a module -------------------------------------------------------------------------------------

    def modinfo(self, *pairs: tuple[str, str], **keys: str | list[str]) -> Self:
        """``key=value`` strings: as pairs where the order matters, as keywords (a list repeats the key) otherwise."""
        everything = [*pairs]
        for key, values in keys.items():
            everything += [(key, value) for value in ([values] if isinstance(values, str) else values)]
        return self.section(".modinfo", b"".join(f"{key}={value}\0".encode() for key, value in everything))

    def export(
        self,
        name: str,
        *,
        gpl: bool = False,
        namespace: str = "",
        crc: int | None = None,
        section: str = ".text",
        value: int = 0,
    ) -> Self:
        """``EXPORT_SYMBOL*``: three distances in ``__ksymtab*``, strings, and a CRC if one is given."""
        suffix = "_gpl" if gpl else ""
        table, strings = f"__ksymtab{suffix}", "__ksymtab_strings"
        if section not in self._sections:
            self.text(b"\xc3" * 16, section)
        if name not in self._symbols:
            self.symbol(name, section, value, type=FUNC)
        start, at = self.size_of(table), self.size_of(strings)
        self.section(strings, name.encode() + b"\0" + namespace.encode() + b"\0")
        self.symbol(f"__kstrtab_{name}", strings, at, bind=LOCAL)
        self.symbol(f"__kstrtabns_{name}", strings, at + len(name.encode()) + 1, bind=LOCAL)
        self.section(table, bytes(12), align=4).symbol(f"__ksymtab_{name}", table, start, bind=LOCAL)
        for step, target in enumerate((name, f"__kstrtab_{name}", f"__kstrtabns_{name}")):
            self.reloc(table, start + 4 * step, X86_64_PC32, target)
        if crc is not None:
            crcs = f"__kcrctab{suffix}"
            self.symbol(f"__crc_{name}", crcs, self.size_of(crcs), bind=LOCAL)
            self.section(crcs, struct.pack(f"{self.order}I", crc), align=4)
        return self

    def param(
        self,
        name: str,
        type: str = "int",
        description: str | None = None,
        *,
        ops: str | None = None,
        perm: int = 0o644,
        level: int = -1,
        flags: int = 0,
    ) -> Self:
        """``module_param``: an entry of ``__param``, a variable of 8 bytes in ``.data``, and the ``parm`` lines."""
        word = self.bits // 8
        start, at, variable = self.size_of("__param"), self.size_of(".rodata.params"), self.size_of(".data")
        self.section(".rodata.params", name.encode() + b"\0").data(bytes(8))
        self.symbol(f"__param_str_{name}", ".rodata.params", at, bind=LOCAL, type=OBJECT)
        self.symbol(name, ".data", variable, bind=LOCAL, type=OBJECT, size=8)
        fixed = struct.pack(f"{self.order}HbB", perm, level, flags)
        self.section("__param", bytes(3 * word) + _padded(fixed, word) + bytes(word), align=word)
        self.reloc("__param", start, X86_64_64, f"__param_str_{name}")
        self.reloc("__param", start + 2 * word, X86_64_64, ops or f"param_ops_{type}")
        self.reloc("__param", start + 4 * word, X86_64_64, name)
        self.modinfo(("parmtype", f"{name}:{type}"))
        return self if description is None else self.modinfo(("parm", f"{name}:{description}"))

    def version(self, name: str, crc: int) -> Self:
        """An entry of ``__versions``."""
        word = "Q" if self.bits == 64 else "I"
        entry = struct.pack(f"{self.order}{word}", crc) + name.encode()
        return self.section("__versions", _padded(entry, 64), align=32)

    def this_module(self, size: int = 896, *, name_at: int = 24, init_at: int = 312, exit_at: int = 848) -> Self:
        """``struct module``'s section: the name, and pointers to init and exit where the builder has them."""
        section = ".gnu.linkonce.this_module"
        body = bytearray(size)
        body[name_at : name_at + len(self.name)] = self.name.encode()
        self.section(section, bytes(body), flags=ALLOC | WRITE, align=64)
        for at, function in ((init_at, "init_module"), (exit_at, "cleanup_module")):
            if function in self._symbols:
                self.reloc(section, at, X86_64_64, function)
        return self

    def module(self, **modinfo: str | list[str]) -> Self:
        """What every loadable module has: init, exit, ``.modinfo`` (GPL, this name, Debian's vermagic), this_module."""
        keys: dict[str, str | list[str]] = {"license": "GPL", "name": self.name, "vermagic": VERMAGIC, "retpoline": "Y"}
        self.init_text().exit_text().modinfo(**(keys | {"depends": ""} | modinfo))
        return self.this_module()

    def signature(
        self,
        message: bytes = b"not really PKCS#7",
        *,
        algo: int = 0,
        hash: int = 0,
        id_type: int = 2,
        signer_len: int = 0,
        key_id_len: int = 0,
        pad: bytes = b"\0\0\0",
        sig_len: int | None = None,
        marker: bytes = MARKER,
    ) -> Self:
        """A message, a trailer and the marker behind the file; every field can be made to lie."""
        length = len(message) if sig_len is None else sig_len
        self._tail += message
        self._tail += struct.pack(">5B3sI", algo, hash, id_type, signer_len, key_id_len, pad, length) + marker
        return self

    def append(self, data: bytes) -> Self:
        """Bytes behind everything."""
        self._tail += data
        return self

    # -- the file ---------------------------------------------------------------------------------------------------

    def size_of(self, section: str) -> int:
        """How many bytes the section has so far."""
        return len(self._sections[section].data) if section in self._sections else 0

    def index_of(self, section: str) -> int:
        """The number that the section has in the built file."""
        return list(self._sections).index(section) + 1

    def build(self) -> bytes:
        """The file."""
        sections = [_Section("", bytearray(), type=0, flags=0, align=0), *self._sections.values()]
        numbers = self._numbered_symbols()
        reloc_type, entry = (RELA, 24) if self.bits == 64 else (REL, 8)
        symtab = len(sections) + sum(bool(section.relocs) for section in sections)
        for number, section in enumerate(list(sections)):
            if section.relocs:
                rows = b"".join(self._reloc(section, row, numbers) for row in section.relocs)
                name = (".rela" if reloc_type == RELA else ".rel") + section.name
                sections.append(_Section(name, bytearray(rows), reloc_type, 0x40, 8, None, entry, symtab, number))
        sections += self._symbol_sections(numbers, symtab)
        names = b"\0" + b"".join(section.name.encode() + b"\0" for section in sections[1:]) + b".shstrtab\0"
        sections.append(_Section(".shstrtab", bytearray(names), STRTAB, 0))
        return self._file(sections) + self._tail

    def write(self, path: Path) -> Path:
        """The file on disk."""
        path.write_bytes(self.build())
        return path

    def _numbered_symbols(self) -> dict[str, tuple[int, _Symbol]]:
        targets = dict.fromkeys(row[2] for section in self._sections.values() for row in section.relocs)
        anchors = {name: _Symbol("", name, 0, 0, LOCAL, SECTION, 0) for name in targets if name not in self._symbols}
        everything = {**anchors, **self._symbols}
        ordered = sorted(everything.items(), key=lambda item: item[1].bind != LOCAL)
        return {name: (number, symbol) for number, (name, symbol) in enumerate(ordered, 1)}

    def _reloc(
        self, section: _Section, row: tuple[int, int, str, int], numbers: dict[str, tuple[int, _Symbol]]
    ) -> bytes:
        offset, type, symbol, addend = row
        number = numbers[symbol][0]
        if self.bits == 32:
            section.data[offset : offset + 4] = struct.pack(f"{self.order}i", addend)
            return struct.pack(f"{self.order}II", offset, number << 8 | type)
        return struct.pack(f"{self.order}QQq", offset, number << 32 | type, addend)

    def _symbol_sections(self, numbers: dict[str, tuple[int, _Symbol]], symtab: int) -> list[_Section]:
        entry = 24 if self.bits == 64 else 16
        rows, strings = bytearray(entry), bytearray(b"\0")
        for _, symbol in numbers.values():
            name_off = len(strings) if symbol.name else 0
            strings += symbol.name.encode() + b"\0" if symbol.name else b""
            shndx = symbol.section if isinstance(symbol.section, int) else self.index_of(symbol.section)
            info = symbol.bind << 4 | symbol.type
            if self.bits == 64:
                fields = ("IBBHQQ", name_off, info, symbol.other, shndx, symbol.value, symbol.size)
            else:
                fields = ("IIIBBH", name_off, symbol.value, symbol.size, info, symbol.other, shndx)
            rows += struct.pack(self.order + fields[0], *fields[1:])
        first_global = 1 + sum(symbol.bind == LOCAL for _, symbol in numbers.values())
        return [
            _Section(".symtab", rows, SYMTAB, 0, 8, None, entry, symtab + 1, first_global),
            _Section(".strtab", strings, STRTAB, 0),
        ]

    def _file(self, sections: list[_Section]) -> bytes:
        word = "Q" if self.bits == 64 else "I"
        header_size, entry = (64, 64) if self.bits == 64 else (52, 40)
        body, table, name_off = bytearray(header_size), b"", 0
        for section in sections:
            body += bytes(-len(body) % max(section.align, 1))
            size = len(section.data) if section.size is None else section.size
            offset = len(body) if section.type else 0
            head = struct.pack(f"{self.order}II", name_off, section.type)
            place = struct.pack(f"{self.order}4{word}", section.flags, 0, offset, size)
            tail = struct.pack(f"{self.order}II2{word}", section.link, section.info, section.align, section.entsize)
            table += head + place + tail
            body += section.data
            name_off += len(section.name.encode()) + 1
        body += bytes(-len(body) % 8)
        ident = b"\x7fELF" + bytes((self.bits // 32, 1 if self.order == "<" else 2, 1)) + bytes(9)
        body[:header_size] = struct.pack(
            f"{self.order}16sHHI3{word}I6H",
            *(
                ident,
                1,
                self.machine,
                1,
                0,
                0,
                len(body),
                0,
                header_size,
                0,
                0,
                entry,
                len(sections),
                len(sections) - 1,
            ),
        )
        return bytes(body) + table


def _padded(data: bytes, to: int) -> bytes:
    return data + bytes(-len(data) % to)
