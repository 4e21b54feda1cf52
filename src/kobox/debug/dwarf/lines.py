"""Line programs, DWARF 2 to 5: which file and line each code address came from."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from kobox.debug.dwarf.constants import FORM
from kobox.debug.dwarf.cursor import Cursor, string_at
from kobox.debug.dwarf.sections import DebugSections
from kobox.errors import BadFile


class Row(NamedTuple):
    """From ``address`` on, code belongs to this line."""

    address: int
    file: int
    line: int
    column: int


class FileEntry(NamedTuple):
    name: str
    directory: int


@dataclass(frozen=True)
class LineTable:
    """One line program, run. ``files`` is indexed as the rows and the debugging entries do it."""

    directories: tuple[str, ...]
    files: tuple[FileEntry, ...]
    sequences: tuple[tuple[int, int, tuple[Row, ...]], ...]
    """(first address, address behind the last, rows) of each run of code, sorted."""

    def row_at(self, address: int) -> Row | None:
        for low, high, rows in self.sequences:
            if low <= address < high:
                at = bisect_right(rows, address, key=lambda row: row.address) - 1
                while at and not rows[at].line:  # line 0: made by the compiler; the line before is the nearest truth
                    at -= 1
                return rows[at]
        return None

    def path(self, file: int) -> str:
        """A file's name as the compiler was told it: relative to the compilation directory where it was."""
        if not 0 <= file < len(self.files):
            return "?"
        entry = self.files[file]
        if entry.name.startswith("/") or entry.directory == 0 or entry.directory >= len(self.directories):
            return entry.name
        return f"{self.directories[entry.directory]}/{entry.name}"


class _Header(NamedTuple):
    version: int
    offset_size: int
    end: int
    min_length: int
    default_is_stmt: int
    line_base: int
    line_range: int
    opcode_base: int
    operand_counts: tuple[int, ...]


def read_line_table(sections: DebugSections, offset: int) -> LineTable:
    """The line program at ``offset`` of ``.debug_line``."""
    section = sections["line"]
    start = Cursor(section.raw, offset)
    length, offset_size = start.u32(), 4
    if length == 0xFFFFFFFF:
        length, offset_size = start.u64(), 8
    end = start.at + length
    if end > len(section):
        raise BadFile(sections.elf.name, f".debug_line+{offset:#x}", "program ends beyond the section", end)
    cursor = Cursor(section.piece(start.at, end))
    version = cursor.u16()
    if not 2 <= version <= 5:
        raise BadFile(sections.elf.name, f".debug_line+{offset:#x}", "line table version", version, "2 to 5")
    if version >= 5:
        cursor.take(2)  # sizes of address and segment selector
    program_at = cursor.uint(offset_size) + cursor.at
    min_length = cursor.u8()
    if version >= 4:
        cursor.u8()  # operations per instruction: 1 outside VLIW machines
    default_is_stmt = cursor.u8()
    line_base = cursor.u8()
    line_base -= 256 if line_base > 127 else 0
    line_range, opcode_base = cursor.u8(), cursor.u8()
    counts = (0, *(cursor.u8() for _ in range(opcode_base - 1)))
    header = _Header(
        version, offset_size, length, min_length, default_is_stmt, line_base, line_range or 1, opcode_base, counts
    )
    directories, files = _names(sections, cursor, header) if version >= 5 else _old_names(cursor)
    cursor.at = program_at
    return LineTable(directories, files, tuple(sorted(_run(cursor, header))))


def _old_names(cursor: Cursor) -> tuple[tuple[str, ...], tuple[FileEntry, ...]]:
    """Before version 5 numbering starts at 1; number 0 means the compilation directory and no file."""
    directories = [""]
    while text := cursor.cstring():
        directories.append(text)
    files = [FileEntry("?", 0)]
    while text := cursor.cstring():
        files.append(FileEntry(text, cursor.uleb()))
        cursor.uleb(), cursor.uleb()  # time and size
    return tuple(directories), tuple(files)


_PATH, _DIRECTORY = 1, 2


def _names(sections: DebugSections, cursor: Cursor, header: _Header) -> tuple[tuple[str, ...], tuple[FileEntry, ...]]:
    directories = tuple(str(entry.get(_PATH, "")) for entry in _entries(sections, cursor, header))
    files = tuple(
        FileEntry(str(entry.get(_PATH, "?")), int(entry.get(_DIRECTORY, 0)))
        for entry in _entries(sections, cursor, header)
    )
    return directories, files


def _entries(sections: DebugSections, cursor: Cursor, header: _Header) -> list[dict[int, int | str]]:
    shape = [(cursor.uleb(), cursor.uleb()) for _ in range(cursor.u8())]
    found = []
    for _ in range(cursor.uleb()):
        found.append({content: _entry_value(sections, cursor, header, form) for content, form in shape})
    return found


_NUMBERS: dict[int, Callable[[Cursor], int]] = {
    FORM.UDATA: Cursor.uleb,
    FORM.DATA1: Cursor.u8,
    FORM.DATA2: Cursor.u16,
    FORM.DATA4: Cursor.u32,
    FORM.DATA8: Cursor.u64,
}
_STRINGS = {FORM.STRP: "str", FORM.LINE_STRP: "line_str"}


def _entry_value(sections: DebugSections, cursor: Cursor, header: _Header, form: int) -> int | str:
    if form in _NUMBERS:
        return _NUMBERS[form](cursor)
    if form in _STRINGS:
        return string_at(sections[_STRINGS[form]].raw, cursor.uint(header.offset_size))
    if form == FORM.STRING:
        return cursor.cstring()
    if form == FORM.DATA16:  # a checksum
        cursor.take(16)
        return 0
    raise BadFile(sections.elf.name, ".debug_line", "form of a file name entry", form)


@dataclass(slots=True)
class _Machine:
    """The registers of the line-number machine."""

    address: int = 0
    file: int = 1
    line: int = 1
    column: int = 0
    ended: bool = False


def _run(cursor: Cursor, header: _Header) -> list[tuple[int, int, tuple[Row, ...]]]:
    sequences = []
    machine, rows = _Machine(), []
    while cursor.at < len(cursor.data):
        opcode = cursor.u8()
        if opcode >= header.opcode_base:
            adjusted = opcode - header.opcode_base
            machine.address += adjusted // header.line_range * header.min_length
            machine.line += header.line_base + adjusted % header.line_range
            rows.append(Row(machine.address, machine.file, machine.line, machine.column))
        elif opcode == _EXTENDED:
            _extended(cursor, machine)
            if machine.ended:
                if rows and machine.address > rows[0].address:
                    sequences.append((rows[0].address, machine.address, tuple(rows)))
                machine, rows = _Machine(), []
        elif opcode == _COPY:
            rows.append(Row(machine.address, machine.file, machine.line, machine.column))
        elif opcode in _STANDARD:
            _STANDARD[opcode](cursor, machine, header)
        else:
            for _ in range(header.operand_counts[opcode]):
                cursor.uleb()
    return sequences


_EXTENDED, _COPY = 0, 1
_END_SEQUENCE, _SET_ADDRESS = 1, 2


def _extended(cursor: Cursor, machine: _Machine) -> None:
    size = cursor.uleb()
    behind = cursor.at + size
    opcode = cursor.u8() if size else 0
    if opcode == _END_SEQUENCE:
        machine.ended = True
    elif opcode == _SET_ADDRESS:
        machine.address = cursor.uint(size - 1)
    cursor.at = behind


def _advance_pc(cursor: Cursor, machine: _Machine, header: _Header) -> None:
    machine.address += cursor.uleb() * header.min_length


def _advance_line(cursor: Cursor, machine: _Machine, header: _Header) -> None:
    machine.line += cursor.sleb()


def _set_file(cursor: Cursor, machine: _Machine, header: _Header) -> None:
    machine.file = cursor.uleb()


def _set_column(cursor: Cursor, machine: _Machine, header: _Header) -> None:
    machine.column = cursor.uleb()


def _const_add_pc(cursor: Cursor, machine: _Machine, header: _Header) -> None:
    machine.address += (255 - header.opcode_base) // header.line_range * header.min_length


def _fixed_advance_pc(cursor: Cursor, machine: _Machine, header: _Header) -> None:
    machine.address += cursor.u16()


_STANDARD: dict[int, Callable[[Cursor, _Machine, _Header], None]] = {
    2: _advance_pc,
    3: _advance_line,
    4: _set_file,
    5: _set_column,
    8: _const_add_pc,
    9: _fixed_advance_pc,
}
"""Standard opcodes with an effect here; the others are skipped by their operand counts."""
