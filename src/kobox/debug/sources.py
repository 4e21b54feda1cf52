"""Put source lines, code and variables to a report, from the module files that belong to it.

Needs the same build that crashed: nothing in an oops proves it, but a function that is missing or too short is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from kobox.debug.disasm import with_instructions
from kobox.debug.dwarf import ModuleDebug, Place
from kobox.debug.records import Access, Code, Frame, Kind, Oops, RegsFrame, SourceLine, Symbol, TraceItem
from kobox.ko import module_name, read_module

_CODE_BEFORE, _CODE_AFTER = 24, 24
HOW_TO_BUILD = "build it with -g (CONFIG_DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT=y, or ccflags-y += -g) and do not strip it"


class KernelFunctions(Protocol):
    """What a kernel image adds to module files."""

    @property
    def release(self) -> str: ...

    def module(self, name: str) -> ModuleDebug | None:
        """The image's own module of that name."""

    def code_around(self, symbol: Symbol, before: int, after: int) -> tuple[bytes, int] | None:
        """Bytes of a kernel function around a place, and how many lie before it."""

    def argument(self, symbol: Symbol, where: Where, register: str, offset: int, value: int | None) -> Access | None:
        """The parameter that a register likely holds, with the member at ``offset`` of what it points to."""


Where = tuple[ModuleDebug | None, Place | None]


class Sources:
    """Module files and folders with their sources. ``notes`` collects what could not be found, once each."""

    def __init__(
        self, modules: Mapping[str, ModuleDebug], folders: Sequence[Path] = (), kernel: KernelFunctions | None = None
    ) -> None:
        self.modules = {name.replace("-", "_"): debug for name, debug in modules.items()}
        self.folders = tuple(folders)
        self.kernel = kernel
        self.notes: list[str] = []
        self._texts: dict[str, list[str] | None] = {}

    @classmethod
    def of_files(
        cls, paths: Iterable[str | Path], folders: Sequence[Path] = (), kernel: KernelFunctions | None = None
    ) -> Sources:
        """Read ``.ko`` files (also compressed ones, and unlinked ``.ko.debug`` files).

        ``kernel`` knows the kernel's own functions and modules.
        """
        found, beside = {}, []
        for path in map(Path, paths):
            name = module_name(str(path)).removesuffix(".ko")
            found[name] = ModuleDebug(read_module(path).elf, name)
            beside.append(path.parent)
        return cls(found, [*folders, *dict.fromkeys(beside)], kernel)

    def annotate(self, oops: Oops) -> Oops:
        """The report with everything filled in that the files tell."""
        if self.kernel and oops.banner.release and oops.banner.release != self.kernel.release:
            self._note(f"this is a report of {oops.banner.release}, the image given is {self.kernel.release}")
        source = self._source(oops.symbol, False) if oops.symbol else ()
        if oops.code is None or oops.code.data is None:
            oops = self._with_code_of_file(oops)
        returns = oops.kind is not Kind.PLACES
        trace = tuple(self._item(item, returns) for item in oops.trace)
        return replace(with_instructions(oops), source=source, trace=trace)

    def _item(self, item: TraceItem, returns: bool) -> TraceItem:
        if isinstance(item, Frame) and item.symbol:
            return replace(item, source=self._source(item.symbol, after_call=returns))
        if isinstance(item, RegsFrame) and item.symbol:
            return replace(item, source=self._source(item.symbol, after_call=False))
        return item

    def _source(self, symbol: Symbol, after_call: bool) -> tuple[SourceLine, ...]:
        debug, place = self.place_of(symbol)
        if debug is None or place is None:
            return ()
        if not debug.has_lines:
            if debug.name in self.modules:
                self._note(f"{debug.elf.name} has no debug data: {HOW_TO_BUILD}")
            return ()
        return tuple(self._with_text(line, debug) for line in debug.locate(place, after_call))

    def place_of(self, symbol: Symbol) -> Where:
        """The file and place of a symbol; a name without a module is looked for in all files given."""
        name = symbol.module.replace("-", "_") if symbol.module else None
        known = self.modules.get(name) if name else None
        if known is None and name and self.kernel:
            known = self.kernel.module(name)
        candidates = [known] if known else []
        if name is None:
            candidates = list(self.modules.values())
        for debug in candidates:
            places = debug.places(symbol)
            if places:
                self._check(debug, symbol, places)
                return debug, places[0]
            if symbol.name.replace("-", "_") == debug.name:
                return debug, debug.place_in_core(symbol.offset)
        if name in self.modules:
            self._note(f"{self.modules[name].elf.name} has no function {symbol.name}: is it the build that ran?")
        return None, None

    def _check(self, debug: ModuleDebug, symbol: Symbol, places: Sequence[Place]) -> None:
        if len(places) > 1:
            self._note(f"{debug.elf.name} has {len(places)} functions called {symbol.name}: the first one is shown")
        own = debug.function_at(places[0]._replace(offset=places[0].offset - symbol.offset))
        if own and symbol.offset > own.size:
            self._note(f"{debug.elf.name}: {symbol.name} is shorter than {symbol.offset:#x}: is it the build that ran?")

    def _with_code_of_file(self, oops: Oops) -> Oops:
        """The module's own bytes where the log has none. They are not relocated: what is missing is named instead."""
        debug, place = self.place_of(oops.symbol) if oops.symbol else (None, None)
        if debug is None or place is None:
            found = (
                self.kernel.code_around(oops.symbol, _CODE_BEFORE, _CODE_AFTER) if self.kernel and oops.symbol else None
            )
            return replace(oops, code=Code(0, *found)) if found else oops
        data, before = debug.bytes_around(place, _CODE_BEFORE, _CODE_AFTER)
        if not data:
            return oops
        ip = oops.registers.ip if oops.registers else 0
        oops = with_instructions(replace(oops, code=Code(ip - before if ip else 0, data, before)))
        shift = place.offset - next((one.address for one in oops.instructions if one.faulting), 0)
        labelled = []
        for one in oops.instructions:
            label = debug.label_in(place._replace(offset=one.address + shift), len(one.data))
            labelled.append(replace(one, text=f"{one.text}  # {label}") if label else one)
        return replace(oops, instructions=tuple(labelled))

    def access(self, oops: Oops) -> Access | None:
        """The variable and member behind the faulting instruction's memory operand."""
        instruction = oops.faulting_instruction
        if not oops.symbol or not instruction or not instruction.memory or not instruction.memory.base:
            return None
        base, offset = instruction.memory.base, instruction.memory.displacement
        value = getattr(oops.registers, base.removeprefix("r") if base[1].isalpha() else base, None)
        debug, place = self.place_of(oops.symbol)
        variable = debug.variable_in(place, base) if debug and place and debug.has_lines else None
        if debug is None or variable is None:
            return self.kernel.argument(oops.symbol, (debug, place), base, offset, value) if self.kernel else None
        member = debug.member_at(variable.pointee, offset) if variable.pointee and offset >= 0 else None
        return Access(
            variable.name,
            variable.type_name,
            member.path or None if member else None,
            member.type_name if member else None,
            offset,
            value,
            base,
        )

    def _with_text(self, line: SourceLine, debug: ModuleDebug) -> SourceLine:
        shown = self._lines_of(line.file, debug)
        text = shown[line.line - 1] if shown and 0 < line.line <= len(shown) else None
        return replace(line, text=text)

    def excerpt(self, line: SourceLine, around: int = 2) -> list[tuple[int, str]]:
        """The lines of source around a place, numbered; empty when the file is not at hand."""
        shown = self._texts.get(line.file)
        if not shown:
            return []
        first = max(line.line - around, 1)
        return [(number, shown[number - 1]) for number in range(first, min(line.line + around, len(shown)) + 1)]

    def _lines_of(self, file: str, debug: ModuleDebug) -> list[str] | None:
        if file not in self._texts:
            self._texts[file] = next(filter(None, map(_read_lines, self._candidates(file, debug))), None)
        return self._texts[file]

    def _candidates(self, file: str, debug: ModuleDebug) -> Iterable[Path]:
        path = Path(file)
        yield path
        for folder in (*self.folders, *map(Path, debug.compilation_directories)):
            for skip in range(len(path.parts)):
                if path.parts[skip] != "/":
                    yield folder.joinpath(*path.parts[skip:])

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _read_lines(path: Path) -> list[str] | None:
    try:
        return path.read_text(errors="replace").splitlines() if path.is_file() else None
    except OSError:
        return None
