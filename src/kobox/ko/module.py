"""A relocatable ELF as a kernel module: every part is read when it is first asked for, and only then.

Asking for ``modinfo`` never touches the symbols; asking for anything never executes, links or verifies.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

from kobox.elf import Buffer, ElfFile, parse
from kobox.errors import BadFile
from kobox.ko.compression import MAX_SIZE, decompress, format_of
from kobox.ko.exports import Export, Import, read_exports, read_imports
from kobox.ko.modinfo import ModInfo, read_modinfo
from kobox.ko.params import Param, read_params
from kobox.ko.pointers import Pointers
from kobox.ko.signature import SignatureTrailer, split_signature
from kobox.ko.versions import read_versions

_THIS_MODULE: Final = ".gnu.linkonce.this_module"
_SUFFIXES: Final = (".xz", ".gz", ".zst", ".ko")


class ThisModule(NamedTuple):
    """The section that becomes ``struct module``, and the offsets in it that the file itself fills with functions."""

    section: int
    offset: int
    size: int
    init: str | None
    exit: str | None
    slots: tuple[tuple[int, str], ...]
    """Offset of each relocated member and the symbol it will point at: a witness of the layout it was built for."""


@dataclass(frozen=True, eq=False)
class KernelModule:
    """A module file. Without slots for the same reason as ``ElfFile``: parts are kept once they were read."""

    file: str
    """What errors call the file."""
    elf: ElfFile
    signature: SignatureTrailer | None
    compression: str | None
    """``xz``, ``gzip``, ``zstd`` or None."""
    file_size: int
    """Size of the file as it was, compressed and signed."""
    data: memoryview = field(repr=False)
    """The unpacked bytes, signature included: what the loader is given."""

    @cached_property
    def name(self) -> str:
        """The module's name: what ``.modinfo`` says, else the file's own name with ``_`` for ``-``."""
        return self.modinfo.get("name") or module_name(self.file)

    @cached_property
    def modinfo(self) -> ModInfo:
        """The pairs of ``.modinfo``."""
        return read_modinfo(self.elf)

    @property
    def import_ns(self) -> tuple[str, ...]:
        """Symbol namespaces that the module imports."""
        return self.modinfo.get_all("import_ns")

    @property
    def depends(self) -> tuple[str, ...]:
        """Modules that modpost found to export what this one needs."""
        return tuple(name for name in self.modinfo.get("depends", "").split(",") if name)

    @cached_property
    def params(self) -> tuple[Param, ...]:
        """Its parameters."""
        return read_params(self.elf, self.modinfo)

    @cached_property
    def exports(self) -> tuple[Export, ...]:
        """Symbols that it offers."""
        return read_exports(self.elf)

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """Symbols that it needs."""
        return read_imports(self.elf)

    @cached_property
    def versions(self) -> dict[str, int]:
        """CRC of each symbol it was built against."""
        return read_versions(self.elf)

    @cached_property
    def this_module(self) -> ThisModule | None:
        """Where ``struct module`` is, None in an object file that modpost did not finish."""
        section = self.elf.alloc_section(_THIS_MODULE)
        if section is None:
            return None
        pointers = Pointers(self.elf, section)
        slots = tuple((offset, pointers.symbol_at(slot)) for offset, slot in sorted(pointers.slots.items()))
        names = {name for _, name in slots}
        return ThisModule(
            section=section.index,
            offset=section.offset,
            size=section.size,
            init="init_module" if "init_module" in names else None,
            exit="cleanup_module" if "cleanup_module" in names else None,
            slots=slots,
        )


def module_name(path: str) -> str:
    """``drivers/net/foo-bar.ko.xz`` to ``foo_bar``."""
    name = os.path.basename(path)
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name.replace("-", "_")


def parse_module(data: Buffer, name: str, limit: int = MAX_SIZE) -> KernelModule:
    """A module from bytes, compressed or not, signed or not; ``name`` is what errors call it."""
    unpacked = decompress(data, name, limit)
    body, signature = split_signature(unpacked)
    return KernelModule(
        file=name,
        elf=parse(body, name),
        signature=signature,
        compression=format_of(data),
        file_size=len(data),
        data=memoryview(unpacked).cast("B").toreadonly(),
    )


def read_module(path: str | os.PathLike[str], limit: int = MAX_SIZE) -> KernelModule:
    """The module in the file ``path``. The file is read whole, so that it may change or go away afterwards."""
    name = os.fspath(path)
    with open(name, "rb", buffering=0) as stream:
        data = stream.read()
    if not data:
        raise BadFile(name, "", "the file is empty")
    return parse_module(data, name, limit)
