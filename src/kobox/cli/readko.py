"""``kobox readko``: what is in a module file, as text for people or JSON for programs."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kobox.errors import KoboxError

if TYPE_CHECKING:
    from kobox.elf import Section, Symbol
    from kobox.ko import KernelModule, SignatureTrailer
    from kobox.ko.overview import Overview, SignatureFacts

EPILOG = """\
examples:
  kobox readko ext4.ko                       the summary
  kobox readko --params --exports bonding.ko
  kobox readko --json --all hello.ko.xz      everything, for programs (docs/readko.md has the schema)
"""

Rows = Iterable[Sequence[object]]
Json = dict[str, Any] | list[Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("files", metavar="FILE.ko", nargs="+", help="module: .ko, plain or xz, zstd or gzip compressed")
    for name, part in PARTS.items():
        parser.add_argument(f"--{name}", dest="parts", action="append_const", const=name, help=part.help)
    parser.add_argument(
        "--all", dest="parts", action="store_const", const=list(PARTS), help="the summary and all parts"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document per file")


def run(args: argparse.Namespace) -> int:
    """Show each file; one that can't be read is reported, the others are still shown."""
    from kobox.ko import read_module

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    parts = [name for name in PARTS if name in (args.parts or ())]
    with_summary = not parts or len(parts) == len(PARTS)
    failed = 0
    for number, file in enumerate(args.files):
        try:
            show = as_json if args.json else as_text
            text = "\n".join(show(read_module(file), parts, with_summary))
        except (KoboxError, OSError) as error:
            if len(args.files) == 1:
                raise
            reason = f"{file}: {error.strerror}" if isinstance(error, OSError) else str(error)
            print(f"kobox readko: {reason}", file=sys.stderr)
            failed = 1
            continue
        print("\n" * bool(number and not args.json) + text)
    return failed


def as_json(module: KernelModule, parts: Sequence[str], with_summary: bool) -> Iterator[str]:
    """One JSON document."""
    document: dict[str, Any] = {"file": module.file, "name": module.name}
    if with_summary:
        document["summary"] = _summary_json(module)
    for name in parts:
        document[name] = PARTS[name].as_json(module)
    yield json.dumps(document, indent=2)


def as_text(module: KernelModule, parts: Sequence[str], with_summary: bool) -> Iterator[str]:
    """Lines for people."""
    if with_summary:
        yield from _summary_text(module)
    for name in parts:
        if with_summary or len(parts) > 1:
            yield ("\n" if with_summary or name != parts[0] else "") + f"{name}:"
        shown = list(PARTS[name].as_text(module))
        yield from shown or ["(none)"]


# -- the summary ------------------------------------------------------------------------------------------------------


def _summary_json(module: KernelModule) -> dict[str, Any]:
    from kobox.ko.overview import overview

    record = overview(module)
    found = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    found["signature"] = _signature_json(record.signature, module.signature)
    return found


def _summary_text(module: KernelModule) -> Iterator[str]:
    from kobox.ko.overview import overview

    o = overview(module)
    packed = f", {o.compression} compressed" if o.compression else ""
    kind = f"{'relocatable' if o.type == 'REL' else o.type} {o.bits}-bit {o.machine.lower()}, {o.byte_order} endian"
    yield f"{printable(o.file)}: {kind}, {o.file_size:,} bytes{packed}"
    rows: list[tuple[str, str | None]] = [
        ("name", o.name),
        ("description", o.description),
        *[("author", author) for author in o.author],
        ("license", o.license or "(not said: taints the kernel)"),
        ("version", o.version),
        ("srcversion", o.srcversion),
        ("vermagic", o.vermagic or "(none)"),
        ("build id", o.build_id),
        ("depends", ", ".join(o.depends) or None),
        *[("softdep", line) for line in o.softdep],
        ("namespaces", ", ".join(o.import_ns) or None),
        ("firmware", _counted(o.firmware)),
        ("aliases", _count(o.aliases)),
        ("entry", _entry(o)),
        ("memory", f"{o.core_size:,} bytes, and {o.init_size:,} until init is done"),
        ("contents", f"{o.sections} sections, {o.symbols} symbols, {o.relocations} relocations{_debug(o)}"),
        ("parameters", _counted([param.name for param in module.params])),
        ("exports", _counted([export.name for export in module.exports], f"{o.exports_gpl} GPL only")),
        ("imports", _counted([symbol.name for symbol in module.imports], f"{o.imports_weak} weak")),
        ("versions", _count(o.versions)),
        ("signature", "none" if o.signature is None else _signature_line(o.signature)),
    ]
    yield from _columns((key, value) for key, value in rows if value is not None)


def _entry(o: Overview) -> str:
    if o.this_module_size is None:
        return "none: no struct module in it, so this is no module that modpost has finished"
    shown = [o.init or "no init", o.exit or "no exit (can't be unloaded)" if o.init else o.exit or "no exit"]
    return f"{', '.join(shown)}; struct module of {o.this_module_size} bytes"


def _debug(o: Overview) -> str:
    return ", debug information" if o.has_debug_info else ""


def _count(number: int) -> str | None:
    return str(number) if number else None


def _counted(names: Sequence[str], remark: str = "") -> str | None:
    if not names:
        return None
    remark = f" ({remark})" if remark and not remark.startswith("0 ") else ""
    return f"{len(names)}{remark}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def _signature_line(facts: SignatureFacts) -> str:
    signer = facts.signer
    who = f", by {signer.name or 'key ' + signer.key_id.hex()}, {signer.hash}" if signer else ""
    wrong = f"; wrong: {'; '.join(facts.problems)}" if facts.problems else ""
    return f"{facts.kind}{who}, {facts.size} bytes, not verified here{wrong}"


# -- the parts --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One option: its help, and the two ways to show that part of a module."""

    help: str
    as_text: Callable[[KernelModule], Iterator[str]]
    as_json: Callable[[KernelModule], Json | None]


def _flags(section: Section) -> list[str]:
    from kobox.elf import SHF

    known = [(name, bit) for name, bit in vars(SHF).items() if name.isupper()]
    return [name.lower() for name, bit in known if section.flags & bit]


def _sections_text(module: KernelModule) -> Iterator[str]:
    from kobox.elf import SHT, name_of

    yield from _table(
        ("nr", "name", "type", "offset", "size", "align", "link", "info", "flags"),
        [
            (
                *(s.index, s.name, name_of(SHT, s.type), f"{s.offset:#x}", f"{s.size:#x}"),
                *(s.addralign, s.link, s.info, " ".join(_flags(s))),
            )
            for s in module.elf.sections[1:]
        ],
    )


def _sections_json(module: KernelModule) -> Json:
    from kobox.elf import SHT, name_of

    return [
        {
            "index": s.index,
            "name": s.name,
            "type": name_of(SHT, s.type),
            "flags": _flags(s),
            "address": s.addr,
            "offset": s.offset,
            "size": s.size,
            "link": s.link,
            "info": s.info,
            "align": s.addralign,
            "entry_size": s.entsize,
        }
        for s in module.elf.sections
    ]


def _symbol_place(module: KernelModule, symbol: Symbol) -> str:
    from kobox.elf import SHN, name_of

    if 0 < symbol.shndx < len(module.elf.sections):
        return module.elf.sections[symbol.shndx].name
    return name_of(SHN, symbol.shndx)


def _symbols_text(module: KernelModule) -> Iterator[str]:
    from kobox.elf import STB, STT, name_of

    yield from _table(
        ("nr", "value", "size", "type", "bind", "section", "name"),
        [
            (
                *(s.index, f"{s.value:#x}", s.size, name_of(STT, s.type), name_of(STB, s.bind)),
                *(_symbol_place(module, s), module.elf.label(s.index)),
            )
            for s in module.elf.symbols
            if s.index
        ],
    )


def _symbols_json(module: KernelModule) -> Json:
    from kobox.elf import STB, STT, STV, name_of

    return [
        {
            "index": s.index,
            "name": module.elf.label(s.index),
            "value": s.value,
            "size": s.size,
            "type": name_of(STT, s.type),
            "bind": name_of(STB, s.bind),
            "visibility": name_of(STV, s.other & 3),
            "section": _symbol_place(module, s),
        }
        for s in module.elf.symbols
    ]


def _relocations(module: KernelModule) -> Iterator[tuple[Section, Iterator[tuple[int, str, str, int | None]]]]:
    """Each relocation section, and its entries with names for numbers."""
    from kobox.elf import SHT, relocation_name

    elf = module.elf
    kinds: dict[int, str] = {}
    labels: dict[int, str] = {}
    for section in elf.sections:
        if section.type not in (SHT.RELA, SHT.REL):
            continue
        table = elf.relocations(section)

        def entries(table: Any = table) -> Iterator[tuple[int, str, str, int | None]]:
            for offset, kind, symbol, addend in table:
                if kind not in kinds:
                    kinds[kind] = relocation_name(elf.header.e_machine, kind)
                if symbol not in labels:
                    labels[symbol] = elf.label(symbol)
                yield offset, kinds[kind], labels[symbol], addend if table.explicit else None

        yield section, entries()


def _relocs_text(module: KernelModule) -> Iterator[str]:
    for section, entries in _relocations(module):
        yield f"{printable(section.name)}:"
        for offset, kind, symbol, addend in entries:
            yield f"  {offset:#010x}  {kind:<16} {printable(symbol)}{f' {addend:+#x}' if addend else ''}"


def _relocs_json(module: KernelModule) -> Json:
    sections = module.elf.sections
    return [
        {
            "section": section.name,
            "target": sections[section.info].name if section.info < len(sections) else None,
            "entries": [
                {"offset": offset, "type": kind, "symbol": symbol, "addend": addend}
                for offset, kind, symbol, addend in entries
            ],
        }
        for section, entries in _relocations(module)
    ]


def _params_text(module: KernelModule) -> Iterator[str]:
    for p in module.params:
        perm = "not in __param" if p.perm is None else f"0{p.perm:03o}"
        flags = "".join(f", {flag}" for flag in p.flag_names)
        yield f"{printable(p.name)}: {printable(p.type or '?')} ({perm}, {printable(p.ops or 'no ops')}{flags})"
        if p.description:
            yield f"    {printable(p.description)}"


def _exports_text(module: KernelModule) -> Iterator[str]:
    yield from _table(
        ("crc", "licence", "name", "namespace"),
        [
            ("-" if e.crc is None else f"{e.crc:#010x}", "GPL" if e.gpl else "any", e.name, e.namespace)
            for e in module.exports
        ],
    )


def _exports_json(module: KernelModule) -> Json:
    sections = module.elf.sections
    return [
        {
            "name": e.name,
            "gpl": e.gpl,
            "namespace": e.namespace,
            "crc": e.crc,
            "section": sections[e.section].name if 0 < e.section < len(sections) else None,
            "offset": e.offset,
        }
        for e in module.exports
    ]


def _imports_text(module: KernelModule) -> Iterator[str]:
    versions = module.versions
    yield from _table(
        ("crc", "name", ""),
        [
            (f"{versions[i.name]:#010x}" if i.name in versions else "-", i.name, "weak" if i.weak else "")
            for i in module.imports
        ],
    )


def _imports_json(module: KernelModule) -> Json:
    versions = module.versions
    return [{"name": i.name, "weak": i.weak, "crc": versions.get(i.name)} for i in module.imports]


def _signature_text(module: KernelModule) -> Iterator[str]:
    from kobox.ko.overview import signature_facts

    trailer, facts = module.signature, signature_facts(module)
    if trailer is None or facts is None:
        return
    signer = facts.signer
    rows = [
        ("kind", facts.kind),
        ("size", f"{facts.size} bytes at {trailer.offset:#x}"),
        ("trailer", f"algo {trailer.algo}, hash {trailer.hash}, id_type {trailer.id_type}, sig_len {trailer.sig_len}"),
    ]
    if signer:
        rows += [
            ("signer", signer.name),
            ("serial", _colons(signer.serial)),
            ("key id", _colons(signer.key_id)),
            ("hash", signer.hash),
            *zip(("signature", *[" "] * len(signer.signature)), _colons_wrapped(signer.signature), strict=False),
        ]
    rows += [("wrong", problem) for problem in facts.problems]
    yield from _columns((key, value) for key, value in rows if value)


def _signature_json(facts: SignatureFacts | None, trailer: SignatureTrailer | None) -> dict[str, Any] | None:
    if facts is None or trailer is None:
        return None
    signer = facts.signer
    return {
        "kind": facts.kind,
        "offset": trailer.offset,
        "size": facts.size,
        "trailer": {
            "algo": trailer.algo,
            "hash": trailer.hash,
            "id_type": trailer.id_type,
            "signer_len": trailer.signer_len,
            "key_id_len": trailer.key_id_len,
            "sig_len": trailer.sig_len,
        },
        "signer": signer.name if signer else None,
        "serial": signer.serial.hex() if signer else None,
        "key_id": signer.key_id.hex() if signer else None,
        "hash": signer.hash if signer else None,
        "signature": signer.signature.hex() if signer else None,
        "problems": list(facts.problems),
    }


def _signature_part(module: KernelModule) -> Json | None:
    from kobox.ko.overview import signature_facts

    return _signature_json(signature_facts(module), module.signature)


PARTS: dict[str, Part] = {
    "modinfo": Part(
        "the pairs of .modinfo, in order",
        lambda module: _columns(module.modinfo.items),
        lambda module: [{"key": key, "value": value} for key, value in module.modinfo],
    ),
    "params": Part(
        "parameters: type, permission, kernel operations, description",
        _params_text,
        lambda module: [param._asdict() for param in module.params],
    ),
    "exports": Part("symbols it offers, with CRC, licence and namespace", _exports_text, _exports_json),
    "imports": Part("symbols it needs, with the CRC it was built against", _imports_text, _imports_json),
    "versions": Part(
        "the CRCs of __versions, by name",
        lambda module: _table(("crc", "name"), [(f"{crc:#010x}", name) for name, crc in module.versions.items()]),
        lambda module: module.versions,
    ),
    "signature": Part("the signature's trailer and signer (not verified)", _signature_text, _signature_part),
    "sections": Part("section headers", _sections_text, _sections_json),
    "symbols": Part("the symbol table", _symbols_text, _symbols_json),
    "relocs": Part("relocations, section by section", _relocs_text, _relocs_json),
}
"""Order is the order on the screen."""


# -- text -------------------------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """``text`` without power over the terminal: what isn't printable is shown as an escape. Files are not trusted."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def _columns(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Keys and values in two columns."""
    listed = [(printable(key), printable(value)) for key, value in pairs]
    width = max((len(key) for key, _ in listed), default=0)
    for key, value in listed:
        yield f"{key:<{width}}  {value}".rstrip()


def _table(head: Sequence[str], rows: Rows) -> Iterator[str]:
    """Rows under a head, each column as wide as it needs; numbers to the right."""
    body = [tuple(map(str, row)) for row in rows]
    if not body:
        return
    right = [isinstance(cell, int) for cell in next(iter(rows))]
    shown = [head, *([printable(cell) for cell in row] for row in body)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = zip(row, widths, right, strict=True)
        yield "  ".join(
            f"{cell:>{width}}" if to_right else f"{cell:<{width}}" for cell, width, to_right in cells
        ).rstrip()


def _colons(raw: bytes) -> str:
    return raw.hex(":").upper()


def _colons_wrapped(raw: bytes) -> list[str]:
    return [_colons(raw[start : start + 24]) for start in range(0, len(raw), 24)]
