"""Units and their debugging entries: headers, abbreviations, attributes of every form, ranges and location lists.

An entry becomes a ``Die`` only when asked for; the rest is skipped, by sibling references where there are some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from kobox.debug.dwarf.constants import AT, FORM, UT
from kobox.debug.dwarf.cursor import Cursor, string_at
from kobox.debug.dwarf.sections import DebugSections
from kobox.errors import BadFile

Attributes = dict[int, Any]


class Index(NamedTuple):
    """A value that stands in a table of the unit's: which one depends on the form."""

    form: int
    number: int


class Abbrev(NamedTuple):
    """A shape of entries: tag, whether children follow, and (attribute, form, constant) in order."""

    tag: int
    children: bool
    specs: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Die:
    """A debugging entry. ``offset`` is its place in ``.debug_info``, ``after`` the place behind its attributes."""

    unit: Unit
    offset: int
    tag: int
    children: bool
    attributes: Attributes
    after: int

    def get(self, attribute: int) -> Any:
        return self.attributes.get(attribute)


@dataclass(eq=False)
class Unit:
    """One unit of ``.debug_info``. All offsets that it hands out are section offsets."""

    sections: DebugSections
    offset: int
    end: int
    version: int
    offset_size: int
    address_size: int
    kind: int
    first_die: int
    abbrev_offset: int

    @cached_property
    def data(self) -> bytes:
        """The unit's own bytes, relocated."""
        return self.sections["info"].piece(self.offset, self.end)

    @cached_property
    def abbrevs(self) -> dict[int, Abbrev]:
        cursor = Cursor(self.sections["abbrev"].raw, self.abbrev_offset)
        found = {}
        while code := cursor.uleb():
            tag, children = cursor.uleb(), bool(cursor.u8())
            specs = []
            while True:
                attribute, form = cursor.uleb(), cursor.uleb()
                constant = cursor.sleb() if form == FORM.IMPLICIT_CONST else 0
                if not attribute and not form:
                    break
                specs.append((attribute, form, constant))
            found[code] = Abbrev(tag, children, tuple(specs))
        return found

    @cached_property
    def root(self) -> Die:
        die = self.die_at(self.first_die)
        if die is None:
            raise BadFile(self.sections.elf.name, f".debug_info+{self.offset:#x}", "unit without a first entry")
        return die

    def die_at(self, offset: int) -> Die | None:
        """The entry at a section offset; None for the null entry that ends a list of children."""
        cursor = Cursor(self.data, offset - self.offset)
        code = cursor.uleb()
        if not code:
            return None
        abbrev = self._abbrev(code, offset)
        values = {
            attribute: constant if form == FORM.IMPLICIT_CONST else read_form(form, cursor, self)
            for attribute, form, constant in abbrev.specs
        }
        return Die(self, offset, abbrev.tag, abbrev.children, values, self.offset + cursor.at)

    def _abbrev(self, code: int, offset: int) -> Abbrev:
        if code not in self.abbrevs:
            raise BadFile(self.sections.elf.name, f".debug_info+{offset:#x}", "abbreviation that is not declared", code)
        return self.abbrevs[code]

    def children(self, die: Die) -> Iterator[Die]:
        """The entries directly below ``die``."""
        if not die.children:
            return
        at = die.after
        while (child := self.die_at(at)) is not None:
            yield child
            at = self.behind(child)

    def behind(self, die: Die) -> int:
        """The section offset behind ``die`` and everything below it."""
        if not die.children:
            return die.after
        sibling = die.get(AT.SIBLING)
        if isinstance(sibling, int) and die.after <= sibling <= self.end:
            return sibling
        at, depth = die.after, 1
        while depth:
            child = self.die_at(at)
            if child is None:
                depth -= 1
                at += 1
            else:
                depth += child.children
                at = child.after
        return at

    def text(self, value: Any) -> str | None:
        """An attribute's string, wherever the form keeps it."""
        if isinstance(value, Index):
            base = self._base(AT.STR_OFFSETS_BASE, 8 if self.offset_size == 4 else 16)
            cursor = Cursor(self.sections["str_offsets"].whole, base + value.number * self.offset_size)
            return string_at(self.sections["str"].raw, cursor.uint(self.offset_size))
        return value if isinstance(value, str) else None

    def address(self, value: Any) -> int | None:
        if isinstance(value, Index):
            base = self._base(AT.ADDR_BASE, 8 if self.offset_size == 4 else 16)
            return Cursor(self.sections["addr"].whole, base + value.number * self.address_size).uint(self.address_size)
        return value if isinstance(value, int) else None

    def _base(self, attribute: int, default: int) -> int:
        value = self.root.get(attribute)
        return value if isinstance(value, int) else default

    @property
    def base_address(self) -> int:
        return self.address(self.root.get(AT.LOW_PC)) or 0

    def ranges(self, die: Die) -> list[tuple[int, int]]:
        """The code that ``die`` covers, as (from, to) pairs."""
        listed = die.get(AT.RANGES)
        if listed is not None:
            return self._rnglist(listed) if self.version >= 5 else self._old_ranges(listed)
        low = self.address(die.get(AT.LOW_PC))
        high = die.get(AT.HIGH_PC)
        if low is None or high is None:
            return []
        # A constant is a length; an address is recognised by lying behind low, as no function is 4 GiB long.
        end = self.address(high)
        if end is None:
            return []
        return [(low, end if end >= low and end >> 32 else low + end)]

    def _old_ranges(self, offset: int) -> list[tuple[int, int]]:
        cursor, base = Cursor(self.sections["ranges"].whole, offset), self.base_address
        found: list[tuple[int, int]] = []
        while True:
            low, high = cursor.u64(), cursor.u64()
            if low == high == 0:
                return found
            if low == (1 << 64) - 1:
                base = high
            else:  # an address that was relocated carries its section and needs no base
                found.append((low, high) if low >> 32 else (base + low, base + high))

    def _rnglist(self, value: Any) -> list[tuple[int, int]]:
        section = self.sections["rnglists"].whole
        cursor = Cursor(section, self._list_offset(value, AT.RNGLISTS_BASE, section))
        base, found = self.base_address, []
        while kind := cursor.u8():
            low, high, base = _read_range(kind, cursor, self, base)
            if low is not None and high is not None:
                found.append((low, high))
        return found

    def _list_offset(self, value: Any, base_attribute: int, section: bytes) -> int:
        if not isinstance(value, Index):
            return int(value)
        base = self._base(base_attribute, 12 if self.offset_size == 4 else 20)
        return base + Cursor(section, base + value.number * self.offset_size).uint(self.offset_size)

    def expression_at(self, value: Any, pc: int) -> bytes | None:
        """The location expression that holds at ``pc``: ``value`` itself, or the entry of its location list."""
        if isinstance(value, bytes):
            return value
        if value is None:
            return None
        return self._loclist(value, pc) if self.version >= 5 else self._old_locations(value, pc)

    def _loclist(self, value: Any, pc: int) -> bytes | None:
        section = self.sections["loclists"].whole
        cursor = Cursor(section, self._list_offset(value, AT.LOCLISTS_BASE, section))
        base, default = self.base_address, None
        while kind := cursor.u8():
            if kind == _LLE_VIEW_PAIR:
                cursor.uleb(), cursor.uleb()
                continue
            if kind == _LLE_DEFAULT:
                default = cursor.take(cursor.uleb())
                continue
            kind = kind if kind < _LLE_DEFAULT else kind - 1  # from here on numbered as in range lists
            low, high, base = _read_range(kind, cursor, self, base)
            if low is None or high is None:
                continue
            expression = cursor.take(cursor.uleb())
            if low <= pc < high:
                return expression
        return default

    def _old_locations(self, offset: int, pc: int) -> bytes | None:
        cursor, base = Cursor(self.sections["loc"].whole, offset), self.base_address
        while True:
            low, high = cursor.u64(), cursor.u64()
            if low == high == 0:
                return None
            if low == (1 << 64) - 1:
                base = high
                continue
            expression = cursor.take(cursor.u16())
            if not low >> 32:
                low, high = base + low, base + high
            if low <= pc < high:
                return expression


_LLE_DEFAULT, _LLE_VIEW_PAIR = 5, 9

Range = tuple[int | None, int | None, int]


def _read_range(kind: int, cursor: Cursor, unit: Unit, base: int) -> Range:
    """One entry of a range list (or the range of a location list's): (from, to, the base from here on)."""
    if kind not in _RANGE_KINDS:
        raise BadFile(unit.sections.elf.name, "range list", "unknown kind of entry", kind)
    return _RANGE_KINDS[kind](cursor, unit, base)


def _indexed(cursor: Cursor, unit: Unit) -> int:
    return unit.address(Index(FORM.ADDRX, cursor.uleb())) or 0


def _base_addressx(cursor: Cursor, unit: Unit, base: int) -> Range:
    return None, None, _indexed(cursor, unit)


def _startx_endx(cursor: Cursor, unit: Unit, base: int) -> Range:
    return _indexed(cursor, unit), _indexed(cursor, unit), base


def _startx_length(cursor: Cursor, unit: Unit, base: int) -> Range:
    low = _indexed(cursor, unit)
    return low, low + cursor.uleb(), base


def _offset_pair(cursor: Cursor, unit: Unit, base: int) -> Range:
    return base + cursor.uleb(), base + cursor.uleb(), base


def _base_address(cursor: Cursor, unit: Unit, base: int) -> Range:
    return None, None, cursor.uint(unit.address_size)


def _start_end(cursor: Cursor, unit: Unit, base: int) -> Range:
    return cursor.uint(unit.address_size), cursor.uint(unit.address_size), base


def _start_length(cursor: Cursor, unit: Unit, base: int) -> Range:
    low = cursor.uint(unit.address_size)
    return low, low + cursor.uleb(), base


_RANGE_KINDS: dict[int, Callable[[Cursor, Unit, int], Range]] = {
    1: _base_addressx,
    2: _startx_endx,
    3: _startx_length,
    4: _offset_pair,
    5: _base_address,
    6: _start_end,
    7: _start_length,
}

FormReader = Callable[[Cursor, Unit], Any]


def read_form(form: int, cursor: Cursor, unit: Unit) -> Any:
    """One value. Numbers are ints, references section offsets, blocks bytes, strings text, indirect ones ``Index``."""
    reader = _FORMS.get(form)
    if reader is None:
        raise BadFile(unit.sections.elf.name, f".debug_info+{unit.offset:#x}", "unknown form", form)
    return reader(cursor, unit)


def _reference(read: Callable[[Cursor], int]) -> FormReader:
    return lambda cursor, unit: unit.offset + read(cursor)


def _index(form: int, read: Callable[[Cursor], int]) -> FormReader:
    return lambda cursor, unit: Index(form, read(cursor))


def _number(read: Callable[[Cursor], int]) -> FormReader:
    return lambda cursor, unit: read(cursor)


def _block(read: Callable[[Cursor], int]) -> FormReader:
    return lambda cursor, unit: cursor.take(read(cursor))


def _offset(cursor: Cursor, unit: Unit) -> int:
    return cursor.uint(unit.offset_size)


def _string_in(section: str) -> FormReader:
    return lambda cursor, unit: string_at(unit.sections[section].raw, cursor.uint(unit.offset_size))


_FORMS: dict[int, FormReader] = {
    FORM.ADDR: lambda cursor, unit: cursor.uint(unit.address_size),
    FORM.BLOCK1: _block(Cursor.u8),
    FORM.BLOCK2: _block(Cursor.u16),
    FORM.BLOCK4: _block(Cursor.u32),
    FORM.BLOCK: _block(Cursor.uleb),
    FORM.EXPRLOC: _block(Cursor.uleb),
    FORM.DATA1: _number(Cursor.u8),
    FORM.DATA2: _number(Cursor.u16),
    FORM.DATA4: _number(Cursor.u32),
    FORM.DATA8: _number(Cursor.u64),
    FORM.DATA16: lambda cursor, unit: cursor.take(16),
    FORM.SDATA: _number(Cursor.sleb),
    FORM.UDATA: _number(Cursor.uleb),
    FORM.STRING: lambda cursor, unit: cursor.cstring(),
    FORM.STRP: _string_in("str"),
    FORM.LINE_STRP: _string_in("line_str"),
    FORM.FLAG: _number(Cursor.u8),
    FORM.FLAG_PRESENT: lambda cursor, unit: 1,
    FORM.REF_ADDR: lambda cursor, unit: cursor.uint(unit.address_size if unit.version == 2 else unit.offset_size),
    FORM.REF1: _reference(Cursor.u8),
    FORM.REF2: _reference(Cursor.u16),
    FORM.REF4: _reference(Cursor.u32),
    FORM.REF8: _reference(Cursor.u64),
    FORM.REF_UDATA: _reference(Cursor.uleb),
    FORM.REF_SIG8: lambda cursor, unit: cursor.take(8),
    FORM.REF_SUP4: lambda cursor, unit: cursor.take(4),
    FORM.REF_SUP8: lambda cursor, unit: cursor.take(8),
    FORM.STRP_SUP: lambda cursor, unit: cursor.take(unit.offset_size),
    FORM.SEC_OFFSET: _offset,
    FORM.INDIRECT: lambda cursor, unit: read_form(cursor.uleb(), cursor, unit),
    FORM.STRX: _index(FORM.STRX, Cursor.uleb),
    FORM.STRX1: _index(FORM.STRX, Cursor.u8),
    FORM.STRX2: _index(FORM.STRX, Cursor.u16),
    FORM.STRX3: _index(FORM.STRX, Cursor.u24),
    FORM.STRX4: _index(FORM.STRX, Cursor.u32),
    FORM.ADDRX: _index(FORM.ADDRX, Cursor.uleb),
    FORM.ADDRX1: _index(FORM.ADDRX, Cursor.u8),
    FORM.ADDRX2: _index(FORM.ADDRX, Cursor.u16),
    FORM.ADDRX3: _index(FORM.ADDRX, Cursor.u24),
    FORM.ADDRX4: _index(FORM.ADDRX, Cursor.u32),
    FORM.LOCLISTX: _index(FORM.LOCLISTX, Cursor.uleb),
    FORM.RNGLISTX: _index(FORM.RNGLISTX, Cursor.uleb),
}


def read_units(sections: DebugSections) -> Iterator[Unit]:
    """The compile units in file order. Only headers are read: the first bytes of each."""
    info = sections["info"]
    at = 0
    while at + 12 < len(info):
        cursor = Cursor(info.piece(at, min(at + 64, len(info))))
        length, offset_size = cursor.u32(), 4
        if length == 0xFFFFFFFF:
            length, offset_size = cursor.u64(), 8
        end = at + cursor.at + length
        if end > len(info) or not length:
            raise BadFile(sections.elf.name, f".debug_info+{at:#x}", "unit ends beyond the section", end, len(info))
        version = cursor.u16()
        if not 2 <= version <= 5:
            raise BadFile(sections.elf.name, f".debug_info+{at:#x}", "DWARF version", version, "2 to 5")
        if version >= 5:
            kind, address_size, abbrev_offset = cursor.u8(), cursor.u8(), cursor.uint(offset_size)
            if kind in (UT.SKELETON, UT.SPLIT_COMPILE):
                cursor.take(8)
        else:
            abbrev_offset, address_size, kind = cursor.uint(offset_size), cursor.u8(), UT.COMPILE
        if kind in (UT.COMPILE, UT.PARTIAL, UT.SKELETON):
            yield Unit(sections, at, end, version, offset_size, address_size, kind, at + cursor.at, abbrev_offset)
        at = end
