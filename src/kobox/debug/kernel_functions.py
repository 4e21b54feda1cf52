"""What a kernel image tells about its functions and modules: code, prototypes, arguments. For reports without DWARF."""

from __future__ import annotations

from kobox.debug.arguments import argument_in, member_path
from kobox.debug.dwarf import ModuleDebug
from kobox.debug.records import Access, Symbol
from kobox.debug.sources import Where
from kobox.image.btf import Btf, Type
from kobox.image.image import Image
from kobox.ko import read_module


class ImageFunctions:
    """Answers for ``Sources`` from an image. A function of another size is not the one that ran: left alone."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._modules: dict[str, ModuleDebug | None] = {}

    @property
    def release(self) -> str:
        return self._image.release

    def module(self, name: str) -> ModuleDebug | None:
        """The image's own module of that name: without source lines, but with code and prototypes."""
        if name not in self._modules:
            tree = self._image.modules
            pattern = f"{name.replace('_', '[-_]')}.ko*"
            path = next(tree.rglob(pattern), None) if tree else None
            self._modules[name] = ModuleDebug(read_module(path).elf, name) if path else None
        return self._modules[name]

    def code_around(self, symbol: Symbol, before: int, after: int) -> tuple[bytes, int] | None:
        start = self._start_of(symbol)
        if start is None:
            return None
        before = min(symbol.offset, before)
        return self._image.read(start + symbol.offset - before, before + after), before

    def argument(self, symbol: Symbol, where: Where, register: str, offset: int, value: int | None) -> Access | None:
        code, function = self._code_and_prototype(symbol, where)
        argument = argument_in(register, code, function) if code and function else None
        if argument is None or argument.pointee is None:
            return None
        path, kind = (member_path(argument.pointee, offset) if offset >= 0 else None) or (None, None)
        return Access(argument.name, argument.type.declare(), path, kind, offset, value, register, argument.index + 1)

    def _code_and_prototype(self, symbol: Symbol, where: Where) -> tuple[bytes, Type | None]:
        """A function's bytes up to the symbol's offset, and its BTF."""
        if symbol.module is None:
            start = self._start_of(symbol)
            code = self._image.read(start, symbol.offset) if start is not None else b""
            return code, self._image.btf.func(symbol.name)
        debug, place = where
        section = debug.elf.section(".BTF") if debug else None
        if debug is None or place is None or section is None:
            return b"", None
        types = Btf(bytes(debug.elf.bytes_of(section)), base=self._image.btf, name=debug.elf.name)
        return debug.bytes_around(place, symbol.offset, 0)[0], types.func(symbol.name)

    def _start_of(self, symbol: Symbol) -> int | None:
        for start in () if symbol.module else self._image.symbols.all(symbol.name):
            located = self._image.symbols.at(start)
            if located and symbol.size in (0, located.size):
                return start
        return None
