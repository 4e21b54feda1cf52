"""An image: a distribution's kernel as kobox uses it, opened from the cache without parsing anything.

``build_image`` reads a kernel file once (unpack, lay out flat, expand kallsyms, index BTF and exports) into a cache
entry; ``Image`` is that entry, mapped. Where images are registered and how they are found by release is in ``store``.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kobox import __version__
from kobox.elf import SHT, ElfFile, parse
from kobox.elf.notes import notes_of
from kobox.errors import BadFile
from kobox.image import tables
from kobox.image.btf import Btf
from kobox.image.cache import Cache, Entry
from kobox.image.config import Config, embedded_config
from kobox.image.exports import RECORD_SIZE, Exports, export_tables
from kobox.image.index import Table, map_file, write_tables
from kobox.image.kallsyms import read_kallsyms
from kobox.image.symbols import Symbols, symbol_tables
from kobox.image.vmlinux import Layout, read_layout, write_flat
from kobox.image.vmlinuz import ELF_MAGIC, packing_of, read_header, unpack

KIND = "image"
FORMAT = 2
"""Goes up whenever what an entry holds or means changes."""

_NT_GNU_BUILD_ID = 3
FLAT, INDEX, CONFIG = "kernel.flat", "index.bin", "config"

Progress = Callable[[str], None]

FEATURES: dict[str, str] = {
    "btf": "__start_BTF",
    "cfi": "__cfi_startup_done",
    "ftrace": "__fentry__",
    "jump_labels": "__start___jump_table",
    "livepatch": "klp_enable_patch",
    "module_sig": "module_sig_check",
    "noprof": "__kmalloc_noprof",
    "orc": "__start_orc_unwind",
    "pcpu_hot": "pcpu_hot",
    "percpu_at_zero": "fixed_percpu_data",
    "retpoline": "__x86_indirect_thunk_array",
    "return_thunk": "__x86_return_thunk",
    "static_calls": "__start_static_call_sites",
}
"""What a kernel can, by the symbol that tells."""


class Image(NamedTuple):
    """One kernel. ``flat`` is its physical memory from ``layout.phys_base`` on, mapped read-only; everything else reads
    through it or through tables mapped from the cache entry ``path``. ``modules`` is its ``lib/modules/RELEASE``."""

    release: str
    key: str
    path: Path
    layout: Layout
    flat: mmap.mmap
    symbols: Symbols
    exports: Exports
    btf: Btf
    config: Config
    facts: Mapping[str, Any]
    modules: Path | None = None

    @property
    def flat_path(self) -> Path:
        """The flat file: map it privately and the kernel lies there as it would after its decompressor."""
        return self.path / FLAT

    @property
    def banner(self) -> str:
        """``Linux version …`` as ``/proc/version`` shows it."""
        return str(self.facts["banner"])

    @property
    def vermagic(self) -> str:
        """What a module's ``vermagic=`` must be; empty when the kernel does not keep the string."""
        return str(self.facts["vermagic"])

    @property
    def build_id(self) -> str:
        """The linker's identification in hex, by which debug information is found; empty when there is none."""
        return str(self.facts["build_id"])

    @property
    def is_rt(self) -> bool:
        """Whether this is a PREEMPT_RT kernel."""
        return "PREEMPT_RT" in self.banner

    @property
    def features(self) -> frozenset[str]:
        """Names from ``FEATURES`` whose symbol is there."""
        return frozenset(name for name, symbol in FEATURES.items() if symbol in self.symbols)

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the kernel as built, at a virtual address (a per-CPU symbol's too)."""
        offset = self.layout.flat_offset(address, size)
        if offset is None:
            raise BadFile(str(self.flat_path), f"0x{address:x}", f"{size} bytes are not all inside the kernel")
        return self.flat[offset : offset + size]

    def read_int(self, address: int, size: int = 8) -> int:
        """An unsigned integer."""
        return int.from_bytes(self.read(address, size), "little")

    def string(self, address: int) -> str:
        """A NUL-terminated string."""
        return tables.string_at(self, address)

    def section(self, name: str) -> bytes | None:
        """Content of an ELF section, None when there is none of that name."""
        section = self.layout.section(name)
        return None if section is None else self.read(section.addr, section.size)

    def between(self, start: str, stop: str) -> bytes:
        """What lies between two symbols; empty when the kernel has them not."""
        first, last = self.symbols.get(start), self.symbols.get(stop)
        return b"" if first is None or last is None else self.read(first, last - first)

    def initcalls(self) -> Iterator[tables.Initcall]:
        """Every initcall in the order the kernel runs them, with its level."""
        return tables.initcalls(self)

    def exception_table(self) -> Iterator[tables.Fixup]:
        """Where faults at known instructions go on."""
        return tables.exception_table(self)

    def bug_table(self) -> Iterator[tables.BugSite]:
        """Every BUG and WARN."""
        return tables.bug_table(self)

    def unwind_entry(self, address: int) -> tables.Unwind | None:
        """The ORC entry for an address of kernel text."""
        return tables.unwind_entry(self, address)

    def smp_locks(self) -> Iterator[int]:
        """Addresses of lock prefixes."""
        return tables.smp_locks(self)

    def certificates(self) -> bytes:
        """X.509 certificates compiled into the kernel, DER, one behind another."""
        return self._sized("system_certificate_list", "system_certificate_list_size")

    def revocations(self) -> bytes:
        """Certificates compiled in as revoked, the same way."""
        return self._sized("revocation_certificate_list", "revocation_certificate_list_size")

    def _sized(self, start: str, size: str) -> bytes:
        if start not in self.symbols or size not in self.symbols:
            return b""
        return self.read(self.symbols[start], self.read_int(self.symbols[size]))


def content_of(data: bytes, config: bytes) -> str:
    """What identifies a kernel's content: its file's and its configuration's."""
    digest = hashlib.sha256(data)
    digest.update(hashlib.sha256(config).digest())
    return digest.hexdigest()[:20]


def cache_key(release: str, content: str) -> str:
    """The cache entry's name: it changes with kobox, the format and the content."""
    return f"{release}-{content}-{__version__}-f{FORMAT}"


def build_image(cache: Cache, data: bytes, config: bytes, name: str, progress: Progress = lambda text: None) -> Entry:
    """The cache entry of a kernel file (a vmlinuz or vmlinux), made now unless it is there; seconds when it is not."""
    release = release_of(data, name)
    key = cache_key(release, content_of(data, config))
    return cache.build(KIND, key, lambda work: _fill(work, data, config, name, release, progress))


def open_entry(entry: Entry, modules: Path | None = None) -> Image:
    """The image of a cache entry."""
    facts = entry.facts
    index = map_file(entry.path / INDEX)
    places = {name: index[at : at + size] for name, (at, size) in facts["tables"].items()}
    with open(entry.path / FLAT, "rb") as handle:
        flat = mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ)
    layout = Layout.from_facts(facts["layout"])
    btf = Btf(flat, *facts["btf"], name=f"BTF of {facts['release']}", tables=places)
    config = Config((entry.path / CONFIG).read_bytes())
    return Image(
        facts["release"],
        entry.key,
        entry.path,
        layout,
        flat,
        Symbols(places),
        Exports(places),
        btf,
        config,
        facts,
        modules,
    )


def release_of(data: bytes, name: str) -> str:
    """The release a kernel file is of."""
    if not data.startswith(ELF_MAGIC):
        release = read_header(data, name).release
        if release:
            return release
    at = data.find(b"Linux version ")
    words = data[at : at + 200].split(b" ", 3) if at >= 0 else []
    if len(words) < 3:
        raise BadFile(name, "banner", "no release in the file")
    return words[2].decode("ascii", "replace")


def _fill(work: Path, data: bytes, config: bytes, name: str, release: str, progress: Progress) -> dict[str, Any]:
    packing = packing_of(data, name)
    progress(f"unpacking {release} ({packing})")
    kernel = unpack(data, name)
    layout = read_layout(kernel, name)
    write_flat(kernel, layout, work / FLAT)
    flat = (work / FLAT).read_bytes()
    progress(f"reading symbols of {release}")
    kallsyms = read_kallsyms(flat, layout.text_base, name)
    found: dict[str, Table] = dict(symbol_tables(kallsyms))
    symbols = Symbols({key: memoryview(table).cast("B") for key, table in found.items()})
    progress(f"reading exports and types of {release}")
    found |= export_tables(flat, layout, symbols, name)
    btf_place = _btf_place(layout, symbols, name)
    found |= Btf(flat, *btf_place, name=f"{name}: BTF").tables
    (work / CONFIG).write_bytes(config or embedded_config(flat) or b"")
    return {
        "release": release,
        "packing": packing,
        "build_id": _build_id(parse(kernel, name)),
        "banner": _string(flat, layout, symbols, "linux_banner").rstrip("\n"),
        "vermagic": _string(flat, layout, symbols, "vermagic"),
        "layout": layout.to_facts(),
        "tables": write_tables(work / INDEX, found),
        "btf": btf_place,
        "symbols": len(kallsyms.names),
        "exports": len(found["exp.records"]) // RECORD_SIZE,
    }


def _build_id(elf: ElfFile) -> str:
    """From the notes, which a kernel has all in one section; empty when they hold none or make no sense."""
    with contextlib.suppress(BadFile):
        for section in elf.sections:
            for note in notes_of(elf, section) if section.type == SHT.NOTE else ():
                if (note.owner, note.type) == ("GNU", _NT_GNU_BUILD_ID):
                    return note.desc.hex()
    return ""


def _btf_place(layout: Layout, symbols: Symbols, name: str) -> tuple[int, int]:
    """Offset in the flat file, and size."""
    start, stop = symbols.get("__start_BTF"), symbols.get("__stop_BTF")
    section = layout.section(".BTF")
    if start is None or stop is None:
        if section is None:
            raise BadFile(
                name, "BTF", "the kernel carries no types", hint="kernel built without CONFIG_DEBUG_INFO_BTF?"
            )
        start, stop = section.addr, section.addr + section.size
    return start - layout.text_base, stop - start


def _string(flat: bytes, layout: Layout, symbols: Symbols, symbol: str) -> str:
    offset = layout.flat_offset(symbols[symbol]) if symbol in symbols else None
    if offset is None:
        return ""
    return flat[offset : flat.find(b"\0", offset, offset + 4096)].decode("ascii", "replace")
