"""The door to a module's debug data: places by function name, source lines, inlined calls, variables, members."""

from __future__ import annotations

import posixpath
import struct
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from kobox.debug.dwarf.constants import AT, OP, REGISTERS, TAG
from kobox.debug.dwarf.lines import LineTable, read_line_table
from kobox.debug.dwarf.sections import DebugSections, address_of, place_of
from kobox.debug.dwarf.units import Attributes, Die, Unit, read_units
from kobox.debug.records import SourceLine, Symbol
from kobox.elf import SHF, STT, ElfFile
from kobox.errors import BadFile


class Place(NamedTuple):
    """A code address of a file that is not linked: section number and offset in it."""

    section_idx: int
    offset: int


class Member(NamedTuple):
    """A member found by offset: ``path`` such as ``list.next`` or ``slots[2]``; ``inside`` bytes into it."""

    path: str
    type_name: str
    inside: int


class CodedLine(NamedTuple):
    """``size`` bytes of code that came from a line. ``primary``: the file that was compiled, where ``file`` may be one
    that it includes; both with the folder that the compiler ran in."""

    place: Place
    size: int
    file: str
    line: int
    primary: str


@dataclass(frozen=True, slots=True)
class Variable:
    """A C variable that a register holds. ``pointee`` is the entry of the type it points to, if it is a pointer."""

    name: str
    type_name: str
    pointee: Die | None


class ModuleDebug:
    """What one module file knows of its source. Everything is read when first asked for.

    ``locate`` and the others answer nothing (an empty tuple, None) where the data says nothing; broken debug data
    raises ``BadFile``.
    """

    def __init__(self, elf: ElfFile, name: str) -> None:
        self.elf, self.name = elf, name
        self._sections = DebugSections(elf)
        self._line_tables: dict[int, LineTable] = {}

    @property
    def has_lines(self) -> bool:
        return self.elf.section(".debug_line") is not None and self.elf.section(".debug_info") is not None

    def places(self, symbol: Symbol) -> tuple[Place, ...]:
        """Where ``name+offset/size`` can be: usually one place, several when static functions share a name.

        The kernel computes a size as the distance to the next symbol it knows; so the ELF size decides first, then that
        distance, then whether the offset is inside at all.
        """
        candidates = [index for index, name in enumerate(self.elf.symbols.names) if name == symbol.name]
        scored = [(self._fit(index, symbol), place) for index in candidates if (place := self._place(index, symbol))]
        if not scored:
            return ()
        best = min(score for score, _ in scored)
        return tuple(dict.fromkeys(place for score, place in scored if score == best))

    def place_in_core(self, offset: int) -> Place | None:
        """Where ``offset`` from the start of the loaded module lies: its code comes first, init code apart from it."""
        at = 0
        for section in self.elf.sections:
            code = section.flags & SHF.ALLOC and section.flags & SHF.EXECINSTR
            if not code or section.name.startswith(".init"):
                continue
            align = max(section.addralign, 1)
            at = (at + align - 1) // align * align
            if at <= offset < at + section.size:
                return Place(section.index, offset - at)
            at += section.size
        return None

    def bytes_around(self, place: Place, before: int, after: int) -> tuple[bytes, int]:
        """Code bytes of the file around a place, as far as its section goes, and how many lie before it."""
        whole = self.elf.bytes_of(self.elf.sections[place.section_idx])
        start = max(place.offset - before, 0)
        return bytes(whole[start : place.offset + after]), place.offset - start

    def label_in(self, place: Place, size: int) -> str | None:
        """What the linker will put into ``size`` bytes of code: the symbol of the relocation there, if there is one."""
        rows = self._relocations.get(place.section_idx, [])
        at = bisect_left(rows, place.offset, key=lambda row: row[0])
        if at == len(rows) or rows[at][0] >= place.offset + size:
            return None
        _, symbol, addend = rows[at]
        name = self.elf.label(symbol)
        return f"{name}{addend:+#x}" if name.startswith(".") else name

    @cached_property
    def _relocations(self) -> dict[int, list[tuple[int, int, int]]]:
        """(offset, symbol, addend) by section, for sections with code."""
        found: dict[int, list[tuple[int, int, int]]] = {}
        for section in self.elf.sections:
            if section.flags & SHF.EXECINSTR:
                tables = self.elf.relocations_of(section)
                found[section.index] = sorted((row[0], row[2], row[3]) for table in tables for row in table)
        return found

    def _place(self, index: int, symbol: Symbol) -> Place | None:
        section_idx = self.elf.symbols.shndxs[index]
        sections = self.elf.sections
        if not 0 < section_idx < len(sections) or not sections[section_idx].flags & SHF.EXECINSTR:
            return None
        return Place(section_idx, self.elf.symbols.values[index] + symbol.offset)

    def _fit(self, index: int, symbol: Symbol) -> int:
        symbols = self.elf.symbols
        size = symbols.sizes[index]
        if symbol.size and symbol.size == size:
            return 0
        if symbol.size and symbol.size == self._distance_to_next(index):
            return 1
        return 2 if symbol.offset <= size else 3

    def _distance_to_next(self, index: int) -> int:
        symbols = self.elf.symbols
        section_idx, value = symbols.shndxs[index], symbols.values[index]
        ends = self._starts.get(section_idx, [])
        at = bisect_right(ends, value)
        return ends[at] - value if at < len(ends) else 0

    @cached_property
    def _starts(self) -> dict[int, list[int]]:
        """The start of every named symbol by section, and the section's end."""
        found: dict[int, set[int]] = {}
        symbols = self.elf.symbols
        rows = zip(symbols.shndxs, symbols.values, symbols.infos, symbols.name_offsets, strict=True)
        for section_idx, value, info, named in rows:
            if named and info & 0xF != STT.SECTION:
                found.setdefault(section_idx, set()).add(value)
        for section in self.elf.sections:
            if section.index in found:
                found[section.index].add(section.size)
        return {section_idx: sorted(starts) for section_idx, starts in found.items()}

    def function_at(self, place: Place) -> Symbol | None:
        """The function that covers a place, as ``name+offset/size`` of the file."""
        symbols, best = self.elf.symbols, None
        rows = zip(symbols.shndxs, symbols.values, symbols.sizes, symbols.infos, strict=True)
        for index, (section_idx, value, size, info) in enumerate(rows):
            inside = section_idx == place.section_idx and value <= place.offset < value + size
            if inside and info & 0xF == STT.FUNC and (best is None or value > symbols.values[best]):
                best = index
        if best is None:
            return None
        return Symbol(symbols.name(best), place.offset - symbols.values[best], symbols.sizes[best], self.name)

    def locate(self, place: Place, after_call: bool = False) -> tuple[SourceLine, ...]:
        """Source of a place, the innermost inlined function first. ``after_call``: it is a return address."""
        with _Guarded(self.elf.name):
            return self._locate(address_of(place.section_idx, place.offset - after_call))

    def _locate(self, pc: int) -> tuple[SourceLine, ...]:
        unit = self._unit_at(pc)
        if unit is None:
            return ()
        table = self._lines_of(unit)
        row = table.row_at(pc) if table else None
        if table is None or row is None:
            return ()
        chain = []
        file, line, column = row.file, row.line, row.column
        for scope in reversed(self._scopes(unit, pc)):
            if scope.tag not in (TAG.INLINED_SUBROUTINE, TAG.SUBPROGRAM):
                continue
            chain.append(SourceLine(table.path(file), line, self._name(scope), column))
            file, line, column = (scope.get(at) or 0 for at in (AT.CALL_FILE, AT.CALL_LINE, AT.CALL_COLUMN))
        return tuple(chain) or (SourceLine(table.path(file), line, None, column),)

    def variable_in(self, place: Place, register: str) -> Variable | None:
        """The variable or parameter that ``register`` (``rax`` …) holds at a place, from the innermost scope out."""
        number = REGISTERS.index(register) if register in REGISTERS else -1
        with _Guarded(self.elf.name):
            return next(self._variables(place, bytes([OP.REG0 + number])), None) if number >= 0 else None

    def _variables(self, place: Place, wanted: bytes) -> Iterator[Variable]:
        pc = address_of(place.section_idx, place.offset)
        unit = self._unit_at(pc)
        if unit is None:
            return
        for scope in reversed(self._scopes(unit, pc)):
            for child in unit.children(scope):
                if child.tag not in (TAG.VARIABLE, TAG.FORMAL_PARAMETER):
                    continue
                if unit.expression_at(child.get(AT.LOCATION), pc) != wanted:
                    continue
                whole = self._with_origin(child)
                kind = self._type(unit, whole)
                yield Variable(self._name(child) or "?", self._type_name(kind), self._pointee(kind))

    def member_at(self, structure: Die, offset: int) -> Member | None:
        """The member of a structure that covers a byte offset, through nested and anonymous ones."""
        with _Guarded(self.elf.name):
            return self._member_at(structure, offset, "")

    def _member_at(self, kind: Die, offset: int, path: str) -> Member | None:
        kind = self._bare(kind)
        if kind.tag in (TAG.STRUCTURE_TYPE, TAG.UNION_TYPE):
            for child in kind.unit.children(kind):
                start = child.get(AT.DATA_MEMBER_LOCATION) or (child.get(AT.DATA_BIT_OFFSET) or 0) // 8
                inner = self._type(kind.unit, child.attributes)
                if child.tag != TAG.MEMBER or inner is None or not isinstance(start, int):
                    continue
                if not start <= offset < start + max(self._size(inner), 1):
                    continue
                name = kind.unit.text(child.get(AT.NAME))
                longer = f"{path}.{name}" if path and name else name or path
                return self._member_at(inner, offset - start, longer)
            return None
        if kind.tag == TAG.ARRAY_TYPE:
            element = self._type(kind.unit, kind.attributes)
            size = self._size(element) if element else 0
            if element and size:
                return self._member_at(element, offset % size, f"{path}[{offset // size}]")
        return Member(path, self._type_name(kind), offset)

    def top_entries(self) -> Iterator[Die]:
        """Entries that belong to no other: types, functions, variables of each unit."""
        with _Guarded(self.elf.name):
            for unit in self._units:
                yield from unit.children(unit.root)

    def type_of(self, die: Die) -> Die | None:
        """The type of a member or variable, behind typedefs and qualifiers; None where it has none."""
        with _Guarded(self.elf.name):
            kind = self._type(die.unit, die.attributes)
            return self._bare(kind) if kind is not None else None

    def size_of(self, kind: Die) -> int:
        """The size of a type in bytes; 0 where the data does not say."""
        with _Guarded(self.elf.name):
            return self._size(kind)

    def _size(self, kind: Die) -> int:
        kind = self._bare(kind)
        size = kind.get(AT.BYTE_SIZE)
        if isinstance(size, int):
            return size
        element = self._type(kind.unit, kind.attributes)
        if kind.tag != TAG.ARRAY_TYPE or element is None:
            return 8 if kind.tag == TAG.POINTER_TYPE else 0
        total = self._size(element)
        for child in kind.unit.children(kind):
            count = child.get(AT.COUNT)
            bound = child.get(AT.UPPER_BOUND)
            total *= count if isinstance(count, int) else bound + 1 if isinstance(bound, int) else 0
        return total

    def _type(self, unit: Unit, attributes: Attributes) -> Die | None:
        offset = attributes.get(AT.TYPE)
        return self._die(offset) if isinstance(offset, int) else None

    def _bare(self, kind: Die) -> Die:
        """The type behind typedefs and qualifiers."""
        for _ in range(_DEEPEST):
            inner = self._type(kind.unit, kind.attributes) if kind.tag in _TRANSPARENT else None
            if inner is None:
                return kind
            kind = inner
        raise BadFile(self.elf.name, f".debug_info+{kind.offset:#x}", "type that refers to itself")

    def _pointee(self, kind: Die | None) -> Die | None:
        bare = self._bare(kind) if kind else None
        if bare is None or bare.tag != TAG.POINTER_TYPE:
            return None
        return self._type(bare.unit, bare.attributes)

    def type_name(self, kind: Die) -> str:
        with _Guarded(self.elf.name):
            return self._type_name(kind)

    def _type_name(self, kind: Die | None) -> str:
        if kind is None:
            return "void"
        name = kind.unit.text(kind.get(AT.NAME))
        if kind.tag in _KEYWORDS:
            return f"{_KEYWORDS[kind.tag]} {name or '{…}'}"
        if name:
            return name
        inner = self._type_name(self._type(kind.unit, kind.attributes))
        if kind.tag == TAG.POINTER_TYPE:
            return f"{inner}*" if inner.endswith("*") else f"{inner} *"
        if kind.tag == TAG.ARRAY_TYPE:
            return f"{inner}[]"
        if kind.tag == TAG.SUBROUTINE_TYPE:
            return f"{inner} (…)"
        return f"{_QUALIFIERS.get(kind.tag, '')}{inner}"

    def _die(self, offset: int) -> Die | None:
        at = bisect_right(self._units, offset, key=lambda unit: unit.offset) - 1
        return self._units[at].die_at(offset) if at >= 0 and offset < self._units[at].end else None

    def _with_origin(self, die: Die) -> Attributes:
        """The entry's attributes over those of the one it is a copy or the definition of."""
        attributes, current = dict(die.attributes), die
        for _ in range(4):
            origin = current.get(AT.ABSTRACT_ORIGIN) or current.get(AT.SPECIFICATION)
            following = self._die(origin) if isinstance(origin, int) else None
            if following is None:
                break
            attributes, current = following.attributes | attributes, following
        return attributes

    def _name(self, die: Die) -> str | None:
        return die.unit.text(self._with_origin(die).get(AT.NAME))

    @cached_property
    def _units(self) -> list[Unit]:
        return list(read_units(self._sections))

    @cached_property
    def _unit_ranges(self) -> list[tuple[int, int, Unit]]:
        found = [(low, high, unit) for unit in self._units for low, high in unit.ranges(unit.root)]
        return sorted(found, key=lambda row: row[:2])

    def _unit_at(self, pc: int) -> Unit | None:
        if not self.has_lines:
            return None
        return next((unit for low, high, unit in self._unit_ranges if low <= pc < high), None)

    def _lines_of(self, unit: Unit) -> LineTable | None:
        offset = unit.root.get(AT.STMT_LIST)
        if not isinstance(offset, int):
            return None
        if offset not in self._line_tables:
            self._line_tables[offset] = read_line_table(self._sections, offset)
        return self._line_tables[offset]

    def _scopes(self, unit: Unit, pc: int) -> list[Die]:
        """From the function that covers ``pc`` inwards: blocks and inlined calls."""
        found: list[Die] = []
        level: Iterator[Die] = iter(self._subprograms(unit))
        while True:
            inside = next((die for die in level if die.tag in _SCOPES and _covers(unit, die, pc)), None)
            if inside is None:
                return found
            found.append(inside)
            level = unit.children(inside)

    def _subprograms(self, unit: Unit) -> list[Die]:
        key = unit.offset
        if key not in self._functions:
            self._functions[key] = [die for die in unit.children(unit.root) if die.tag == TAG.SUBPROGRAM]
        return self._functions[key]

    @cached_property
    def _functions(self) -> dict[int, list[Die]]:
        return {}

    def coded_lines(self) -> Iterator[CodedLine]:
        """Every run of code with the line it came from, unit by unit; code that the compiler added belongs to none."""
        with _Guarded(self.elf.name):
            for unit in self._units:
                table = self._lines_of(unit)
                home = unit.text(unit.root.get(AT.COMP_DIR)) or ""
                primary = posixpath.join(home, unit.text(unit.root.get(AT.NAME)) or "")
                for _, end, rows in table.sequences if table else ():
                    ends = (*(row.address for row in rows[1:]), end)
                    for row, behind in zip(rows, ends, strict=True):
                        if row.line and row.address < behind:
                            path = posixpath.join(home, table.path(row.file)) if table else ""
                            yield CodedLine(
                                Place(*place_of(row.address)), behind - row.address, path, row.line, primary
                            )

    @cached_property
    def compilation_directories(self) -> tuple[str, ...]:
        """Where the compiler ran: names of files are relative to these."""
        with _Guarded(self.elf.name):
            texts = (unit.text(unit.root.get(AT.COMP_DIR)) for unit in self._units)
            return tuple(dict.fromkeys(text for text in texts if text))


def _covers(unit: Unit, die: Die, pc: int) -> bool:
    return any(low <= pc < high for low, high in unit.ranges(die))


_DEEPEST = 64
_SCOPES = frozenset({TAG.SUBPROGRAM, TAG.LEXICAL_BLOCK, TAG.INLINED_SUBROUTINE})
_TRANSPARENT = frozenset({TAG.TYPEDEF, TAG.CONST_TYPE, TAG.VOLATILE_TYPE, TAG.RESTRICT_TYPE, TAG.ATOMIC_TYPE})
_KEYWORDS: dict[int, str] = {TAG.STRUCTURE_TYPE: "struct", TAG.UNION_TYPE: "union", TAG.ENUMERATION_TYPE: "enum"}
_QUALIFIERS: dict[int, str] = {TAG.CONST_TYPE: "const ", TAG.VOLATILE_TYPE: "volatile "}


class _Guarded:
    """Turns what broken debug data does to the readers into one ``BadFile``."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, struct.error | zlib.error | IndexError | OverflowError | RecursionError):
            raise BadFile(self.file, "DWARF", f"debug data is damaged ({error})") from error
