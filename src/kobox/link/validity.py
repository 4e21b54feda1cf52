"""Is this file a module the kernel would look at? The kernel's own ELF checks, in its order, with its words.

Follows ``elf_validity_check``, ``setup_load_info`` and ``rewrite_section_headers`` of kernel/module/main.c. What the
kernel leaves unchecked is left unchecked here (EI_CLASS, e_version, section types, overlaps …). Where the kernel would
read outside the file, a ``Refusal`` with ``crash`` set takes the place of its oops.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from kobox.elf.constants import EM, ET, SHF, SHN, SHT
from kobox.elf.file import Header, Section
from kobox.elf.gate import text
from kobox.elf.layouts import LAYOUTS, MAGIC
from kobox.link.findings import Level, LogLine, Refusal
from kobox.link.rules import Rules

_LAYOUT = LAYOUTS[64, "<"]
"""The only shape the loader of an x86-64 kernel knows, whatever the identification bytes say."""

SYM_SIZE = _LAYOUT.symbol.size
NAMELESS = "(missing .modinfo section or name field)"
THIS_MODULE = ".gnu.linkonce.this_module"


class Indices(NamedTuple):
    """Section numbers the loader keeps at hand; 0 means the module has no such section."""

    sym: int
    str: int
    mod: int
    vers: int
    info: int
    pcpu: int
    vers_ext_crc: int = 0
    vers_ext_name: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class LoadView:
    """A module file as the loader sees it after its checks: raw headers, section numbers, metadata strings.

    ``flags`` are the section flags with SHF_ALLOC taken from the version and metadata sections. ``name`` is what the
    kernel calls the module in messages; ``mod_name`` is what stands in its ``struct module``. They differ in odd files.
    ``rules`` are the kernel's that checked it. ``modinfo`` keeps order and duplicates. ``data`` is the file without its
    signature, and is not copied.
    """

    data: memoryview
    header: Header
    sections: tuple[Section, ...]
    names: tuple[str, ...]
    flags: tuple[int, ...]
    index: Indices
    modinfo: tuple[tuple[str, str], ...]
    name: str
    mod_name: str
    rules: Rules

    def info(self, tag: str) -> str | None:
        """The first value of a metadata tag, as the kernel finds it; None if there is none."""
        for key, value in self.modinfo:
            if key == tag:
                return value
        return None

    def info_all(self, tag: str) -> list[str]:
        return [value for key, value in self.modinfo if key == tag]

    def find(self, name: str) -> int:
        """Number of the first allocated section of that name, or 0."""
        return _find(self.names, self.flags, name)

    def find_any(self, name: str) -> int:
        """Number of the first section of that name, allocated or not, or 0."""
        try:
            return self.names.index(name, 1)
        except ValueError:
            return 0

    def contents(self, index: int) -> memoryview:
        """The file's bytes at a section's offset, cut at the file's end; as for the kernel, SHT_NOBITS has some too."""
        section = self.sections[index]
        return self.data[section.offset : section.offset + section.size]

    def text_at(self, offset: int) -> str:
        """The NUL-ended string at a file offset."""
        return text(_string(self.data, offset))


def load_view(data: memoryview | bytes, rules: Rules, ignore_modversions: bool = False) -> LoadView:
    """Check ``data`` (a module without its signature) as the kernel does and note what the loader needs.

    Raises ``Refusal`` (ENOEXEC) with the kernel's line.
    """
    checks = _Checks(memoryview(data), rules)
    for check in _CHECKS_BY_INDEX if rules.memories else _CHECKS_IN_ONE_PASS:
        check(checks)
    return checks.view(ignore_modversions)


class Fault(NamedTuple):
    """One thing wrong with a file. ``check`` is the name of the check that found it."""

    check: str
    refusal: Refusal


def faults_of(
    data: memoryview | bytes, rules: Rules, ignore_modversions: bool = False
) -> tuple[LoadView | None, tuple[Fault, ...]]:
    """Every fault that the kernel's checks would find if none of them ended the load, in their order.

    The view is there without faults, and with such as leave the module's metadata readable: then sections and symbols
    must not be trusted.
    """
    checks = _Checks(memoryview(data), rules)
    found: list[Fault] = []
    for check in _CHECKS_BY_INDEX if rules.memories else _CHECKS_IN_ONE_PASS:
        try:
            check(checks)
        except Refusal as refusal:
            found.append(Fault(check.__name__, refusal))
            foreign = check is _Checks.architecture and checks.header.e_ident[4:6] != _CLASS_AND_ORDER
            if foreign or check in _FOUNDATIONS:
                return None, tuple(found)
    try:
        return (checks.view(ignore_modversions) if checks.mod else None), tuple(found)
    except Refusal as refusal:
        return None, (*found, Fault("view", refusal))


def enforce_rwx(view: LoadView, rules: Rules) -> None:
    """Refuse sections that are both writable and executable."""
    if not rules.strict_rwx:
        return
    both = SHF.WRITE | SHF.EXECINSTR
    for number, section in enumerate(view.sections):
        if section.flags & both == both:
            raise _refusal(
                f"{view.mod_name}: section {view.names[number]} (index {number}) has invalid WRITE|EXEC flags"
            )


class _Checks:
    """The checks' common state; each method is one check and leaves behind what later ones need."""

    def __init__(self, data: memoryview, rules: Rules) -> None:
        self.data = data
        self.rules = rules
        self.header: Header
        self.sections: tuple[Section, ...]
        self.names: tuple[str, ...]
        self.lost_name = False
        self.modinfo: tuple[tuple[str, str], ...] = ()
        self.info = self.mod = self.sym = self.strtab = 0

    def _read_names(self, rows: list[tuple[int, ...]]) -> tuple[str, ...]:
        """Section names as far as the file has them; whether the table is sound is checked elsewhere."""
        number = self.header.e_shstrndx
        if number >= len(rows):
            return ("",) * len(rows)
        start, size = rows[number][4:6]
        table = bytes(self.data[start : start + size])
        letters = table.decode("latin-1")
        found = []
        for row in rows:
            end = letters.find("\0", row[0])
            if end >= 0:
                name = letters[row[0] : end]
                found.append(name if name.isascii() else text(table[row[0] : end]))
            else:
                found.append(self._name_behind_table(start + row[0]))
        return tuple(found)

    def _name_behind_table(self, offset: int) -> str:
        try:
            return text(_string(self.data, offset))
        except Refusal:
            self.lost_name = True
            return ""

    @cached_property
    def name(self) -> str | None:
        return next((value for key, value in self.modinfo if key == "name"), None)

    # The file header.

    def elf_header(self) -> None:
        data = self.data
        if len(data) < _LAYOUT.header.size:
            raise _refusal(f"Invalid ELF header len {len(data)}")
        self.header = header = Header._make(_LAYOUT.header.unpack_from(data))
        if header.e_ident[:4] != MAGIC:
            raise _refusal("Invalid ELF header magic: != \x7fELF")

    def object_type(self) -> None:
        if self.header.e_type != ET.REL:
            raise _refusal(f"Invalid ELF header type: {self.header.e_type} != {ET.REL}")

    def architecture(self) -> None:
        if self.header.e_machine != EM.X86_64:
            raise _refusal(f"Invalid architecture in ELF header: {self.header.e_machine}")

    def section_table(self) -> None:
        header, size = self.header, len(self.data)
        if header.e_shentsize != _LAYOUT.section.size:
            raise _refusal("Invalid ELF section header size")
        if header.e_shoff >= size or header.e_shnum * _LAYOUT.section.size > size - header.e_shoff:
            raise _refusal("Invalid ELF section header overflow")
        table = self.data[header.e_shoff : header.e_shoff + header.e_shnum * _LAYOUT.section.size]
        rows = list(_LAYOUT.section.iter_unpack(table))
        self.names = self._read_names(rows)
        numbered = enumerate(zip(self.names, rows, strict=True))
        self.sections = tuple([Section._make((number, name, *row[1:], row[0])) for number, (name, row) in numbered])

    # Section names.

    def name_table_index(self) -> None:
        header = self.header
        if header.e_shstrndx == SHN.UNDEF or header.e_shstrndx >= header.e_shnum:
            raise _refusal(
                f"Invalid ELF section name index: {header.e_shstrndx} || "
                f"e_shstrndx ({header.e_shstrndx}) >= e_shnum ({header.e_shnum})"
            )

    def name_table_range(self) -> None:
        table = self.sections[self.header.e_shstrndx]
        if not self._inside(table):
            raise _refusal(f"Invalid ELF section hdr(type {table.type})")

    def name_table_end(self) -> None:
        table = self.sections[self.header.e_shstrndx]
        if table.size == 0:
            raise _refusal("empty section name table")
        last = table.offset + table.size - 1
        if last >= len(self.data):
            raise _outside("the section name table")
        if self.data[last] != 0:
            raise _refusal("ELF Spec violation: section name table isn't null terminated")

    def every_name(self) -> None:
        size = self.sections[self.header.e_shstrndx].size
        for number, section in enumerate(self.sections):
            if section.type != SHT.NULL and section.name_off >= size:
                raise _refusal(f"Invalid ELF section name in module (section {number} type {section.type})")

    # Section headers.

    def section_zero(self) -> None:
        if not self.sections:
            raise _outside("section header 0")
        first = self.sections[0]
        if first.type != SHT.NULL or first.size or first.addr:
            raise _refusal(
                f"ELF Spec violation: section 0 type({_signed(first.type)})!=SH_NULL or non-zero len or addr"
            )

    def every_range(self) -> None:
        for number, section in enumerate(self.sections[1:], 1):
            if section.type not in (SHT.NULL, SHT.NOBITS) and not self._inside(section):
                raise _refusal(f"Invalid ELF section in module (section {number} type {section.type})")

    def every_section(self) -> None:
        """Links, ranges and names of allocated sections in one pass, as older kernels check them."""
        end = len(self.data)
        names_size = self.sections[self.header.e_shstrndx].size
        for number, section in enumerate(self.sections[1:], 1):
            kind = section.type
            if kind in (SHT.NULL, SHT.NOBITS):
                continue
            if kind == SHT.SYMTAB:
                self._check_link(section)
            if section.offset + section.size > end:
                raise _refusal(f"Invalid ELF section in module (section {number} type {kind})")
            if section.flags & SHF.ALLOC and section.name_off >= names_size:
                raise _refusal(f"Invalid ELF section name in module (section {number} type {kind})")

    # What the loader looks up by name.

    def metadata(self) -> None:
        self.info = _find(self.names, [section.flags for section in self.sections], ".modinfo")
        if self.info:
            self.modinfo = self._modinfo()

    def first_symbol_table(self) -> None:
        for number, section in enumerate(self.sections[1:], 1):
            if section.type == SHT.SYMTAB:
                self.sym, self.strtab = number, section.link
                return
        raise _refusal(f"{self._shown_name()}: module has no symbols (stripped?)", Level.WARNING)

    def first_this_module(self) -> None:
        self.mod = _find(self.names, [section.flags for section in self.sections], THIS_MODULE)
        if not self.mod:
            raise _refusal(f"{self._shown_name()}: No module found in object", Level.WARNING)

    def only_metadata(self) -> None:
        if self.names[1:].count(".modinfo") > 1:
            raise _refusal("Only one .modinfo section must exist.")
        if ".modinfo" in self.names[1:]:
            self.info = self.names.index(".modinfo", 1)
            self.modinfo = self._modinfo()

    def only_this_module(self) -> None:
        who = f"module {self._shown_name()}:"
        if self.names[1:].count(THIS_MODULE) != 1:
            raise _refusal(f"{who} Exactly one {THIS_MODULE} section must exist.")
        self.mod = self.names.index(THIS_MODULE, 1)
        section = self.sections[self.mod]
        if section.type == SHT.NOBITS:
            raise _refusal(f"{who} {THIS_MODULE} section must have a size set")
        if not section.flags & SHF.ALLOC:
            raise _refusal(f"{who} {THIS_MODULE} must occupy memory during process execution")
        if section.size != self.rules.sizes.get("module", section.size):
            raise _refusal(
                f"{who} {THIS_MODULE} section size must match the kernel's built struct module size at run time"
            )

    def only_symbol_table(self) -> None:
        tables = [number for number, section in enumerate(self.sections) if number and section.type == SHT.SYMTAB]
        if len(tables) != 1:
            raise _refusal(f"{self._shown_name()}: module has no symbols (stripped?)", Level.WARNING)
        self.sym = tables[0]
        self._check_link(self.sections[self.sym])
        self.strtab = self.sections[self.sym].link

    def view(self, ignore_modversions: bool) -> LoadView:
        mod_name = self._name_in_struct()
        if self.lost_name:
            raise _outside("a section name")
        flags = [section.flags for section in self.sections]
        vers = crc = name = 0
        if not ignore_modversions:
            vers = _find(self.names, flags, "__versions")
            crc = _find(self.names, flags, "__version_ext_crcs")
            name = _find(self.names, flags, "__version_ext_names")
        pcpu = _find(self.names, flags, ".data..percpu")
        index = Indices(self.sym, self.strtab, self.mod, vers, self.info, pcpu, crc, name)
        return LoadView(
            data=self.data,
            header=self.header,
            sections=self.sections,
            names=self.names,
            flags=_kept_flags(self.sections, index),
            index=index,
            modinfo=self.modinfo,
            name=mod_name if self.name is None else self.name,
            mod_name=mod_name,
            rules=self.rules,
        )

    # Helpers of the checks.

    def _inside(self, section: Section) -> bool:
        return section.offset + section.size <= len(self.data)

    def _check_link(self, section: Section) -> None:
        if section.link == SHN.UNDEF or section.link >= self.header.e_shnum:
            link = _signed(section.link)
            raise _refusal(
                f"Invalid ELF sh_link!=SHN_UNDEF({link}) or (sh_link({link}) >= hdr->e_shnum({self.header.e_shnum})"
            )

    def _shown_name(self) -> str:
        return NAMELESS if self.name is None else self.name

    def _modinfo(self) -> tuple[tuple[str, str], ...]:
        """Metadata strings in order. A last string without its NUL runs on into the bytes behind the section."""
        section = self.sections[self.info]
        start, end = section.offset, section.offset + section.size
        raw = bytes(self.data[start:end])
        strings = [part for part in raw.split(b"\0") if part]
        if not raw:
            strings = [_string(self.data, start)]
        elif raw[-1]:
            strings[-1] += _string(self.data, end)
        pairs = [text(part).partition("=") for part in strings]
        return tuple((key, value) for key, equals, value in pairs if equals)

    def _name_in_struct(self) -> str:
        """``module.name`` as built into the file. Without its offset: the first text in an otherwise zero struct."""
        section = self.sections[self.mod]
        offset = self.rules.name_offset
        if offset is None:
            built = bytes(self.data[section.offset : section.offset + section.size])
            offset = len(built) - len(built.lstrip(b"\0"))
        return text(_string(self.data, section.offset + offset))


_CHECKS_IN_ONE_PASS = (
    _Checks.elf_header,
    _Checks.object_type,
    _Checks.architecture,
    _Checks.section_table,
    _Checks.name_table_index,
    _Checks.name_table_range,
    _Checks.name_table_end,
    _Checks.section_zero,
    _Checks.every_section,
    _Checks.metadata,
    _Checks.first_symbol_table,
    _Checks.first_this_module,
)
_CHECKS_BY_INDEX = (
    _Checks.elf_header,
    _Checks.object_type,
    _Checks.architecture,
    _Checks.section_table,
    _Checks.section_zero,
    _Checks.every_range,
    _Checks.name_table_index,
    _Checks.name_table_end,
    _Checks.every_name,
    _Checks.only_metadata,
    _Checks.only_this_module,
    _Checks.only_symbol_table,
)


_FOUNDATIONS = (_Checks.elf_header, _Checks.section_table, _Checks.name_table_index)
"""What later checks cannot do without."""
_CLASS_AND_ORDER = b"\x02\x01"
"""Identification bytes of a 64-bit little-endian file."""


def _find(names: tuple[str, ...], flags: list[int] | tuple[int, ...], name: str) -> int:
    found = 0
    try:
        while True:
            found = names.index(name, found + 1)
            if flags[found] & SHF.ALLOC:
                return found
    except ValueError:
        return 0


def _kept_flags(sections: tuple[Section, ...], index: Indices) -> tuple[int, ...]:
    flags = [section.flags for section in sections]
    for number in (index.vers, index.info, index.vers_ext_crc, index.vers_ext_name):
        flags[number] &= ~SHF.ALLOC
    return tuple(flags)


def _string(data: memoryview, offset: int) -> bytes:
    """NUL-ended string; the kernel would read on for ever, a file ends."""
    size = 64
    while offset < len(data):
        string, end, _ = bytes(data[offset : offset + size]).partition(b"\0")
        if end:
            return string
        if offset + size >= len(data):
            break
        size *= 4
    raise _outside(f"a string at {offset:#x}")


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value


def _refusal(text: str, level: int = Level.ERR) -> Refusal:
    return Refusal(errno.ENOEXEC, (LogLine(level, text),))


def _outside(what: str) -> Refusal:
    return Refusal(errno.ENOEXEC, why=f"{what} lies outside the file; a real kernel would oops", crash=True)
