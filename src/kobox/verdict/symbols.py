"""Why symbols cannot be bound: each unresolved name is of one kind, and each kind becomes one reason."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from kobox.elf.constants import STB
from kobox.link import KERNEL, Exporter, LoadView, LogLine, Resolver, Symbols, symbol_table
from kobox.link.policy import find_symbol
from kobox.link.resolve import Resolution, symbol_name
from kobox.verdict.files import ModuleFiles
from kobox.verdict.fixes import fix_of
from kobox.verdict.records import Line, Reason

MOST_GUESSES = 8
"""For more missing names than these, no names that are alike are looked for: each costs a look at every export."""


class Surroundings(NamedTuple):
    """What is known besides the module: who exports, what the kernel has unexported, where modules lie."""

    exporters: Collection[Exporter]
    exported: Iterable[str]
    in_kernel: Callable[[str], bool]
    files: ModuleFiles
    lacking: tuple[str, ...]
    """Modules of ``depends=`` that are nowhere."""
    release: str
    file: str
    is_whole: bool = True
    """The kernel is all of a kernel: what it lacks is nowhere."""


def strong_undefined(view: LoadView) -> list[str]:
    """Undefined names whose absence ends the load."""
    table = symbol_table(view)
    return [
        symbol_name(view, table, number)
        for number, shndx in enumerate(table.shndxs)
        if number and shndx == 0 and table.infos[number] >> 4 != STB.WEAK
    ]


def symbol_reasons(view: LoadView, symbols: Symbols, resolver: Resolver, around: Surroundings) -> list[Reason]:
    """One reason for each kind of trouble, with every symbol concerned as an item."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for name in dict.fromkeys(symbols.unresolved):
        rule, item = _classify(name, symbols.bound[name], resolver, around)
        kinds.setdefault(rule, []).append(item)
    lines = _lines_by_name(symbols)
    reasons = []
    for rule, items in kinds.items():
        said = tuple(line for item in items for line in lines.get(item["symbol"], ()))
        text, names = _TEXTS[rule](items, around)
        fix = fix_of(rule, release=around.release, file=around.file, **names)
        reasons.append(Reason(rule, "link", _errno(rule, items), text, fix, said, items=tuple(items)))
    rest = [line for line in lines.get("", ()) if symbols.error == errno.ENOEXEC]
    if rest:
        common = any("common" in line.text for line in rest)
        rule = "symbol-common" if common else "symbol-section"
        text = "it has symbols without a place" if common else "symbols of it lie in sections that it does not have"
        reasons.append(Reason(rule, "link", errno.ENOEXEC, text, fix_of(rule), tuple(rest)))
    return reasons


def _errno(rule: str, items: list[Mapping[str, Any]]) -> int:
    return int(items[-1]["errno"]) if rule == "symbol-busy" else _NUMBERS.get(rule, errno.ENOENT)


_NUMBERS = {"symbol-version": errno.EINVAL, "symbol-namespace": errno.EINVAL}


def _lines_by_name(symbols: Symbols) -> dict[str, list[Line]]:
    """Every log line under the name it is about: those said while a name is resolved, and the line that fails it."""
    found: dict[str, list[Line]] = {}
    closing = {f"Unknown symbol {name} (err -": name for name in symbols.unresolved}
    pending: list[Line] = []
    for finding in symbols.findings:
        if not isinstance(finding, LogLine):
            continue
        pending.append(Line(finding.level, finding.text))
        text = finding.text.partition(": ")[2]
        name = next((name for start, name in closing.items() if text.startswith(start)), None)
        if name is not None:
            found.setdefault(name, []).extend(pending)
            pending = []
        elif "Unknown symbol" not in text and ("-fno-common" in text or "invalid section index" in text):
            found.setdefault("", []).append(pending.pop())
    return found


def _classify(name: str, answer: Resolution, resolver: Resolver, around: Surroundings) -> tuple[str, Mapping[str, Any]]:
    item: dict[str, Any] = {"symbol": name}
    offered = find_symbol(around.exporters, name)
    if answer.error in (errno.EBUSY, errno.ENOENT) and answer.found:
        return "symbol-busy", item | {"owner": answer.owner, "errno": answer.error}
    if offered is not None:
        owner, export = offered
        item["owner"] = owner.name
        if answer.error == errno.EINVAL:
            if export.namespace and not resolver.may_use(export.namespace):
                built = (resolver.versions or {}).get(name)
                if export.crc is None or built == export.crc or not resolver.rules.modversions:
                    return "symbol-namespace", item | {"namespace": export.namespace}
            built = None if resolver.versions is None else resolver.versions.get(name)
            return "symbol-version", item | {"built": _hex(built), "expected": _hex(export.crc)}
        if answer.owner:
            return "symbol-proprietary", item
        return "symbol-gpl-only", item
    exporters = around.files.exporters_of(name)
    if exporters:
        return "dependency-not-loaded", item | {"exporters": exporters}
    if around.in_kernel(name):
        return "symbol-not-exported", item
    if not around.is_whole:
        return "bare-lacks", item
    return ("dependency-missing" if around.lacking else "symbol-missing"), item


def _hex(crc: int | None) -> str | None:
    return None if crc is None else f"{crc:#010x}"


# The sentences: items and surroundings to text, and the names that the fix needs.

_Text = tuple[str, dict[str, str]]
_Items = list[Mapping[str, Any]]


def _names(items: _Items, most: int = 6) -> str:
    shown = [str(item["symbol"]) for item in items[:most]]
    return ", ".join(shown) + (f" and {len(items) - most} more" if len(items) > most else "")


def _are(items: _Items) -> str:
    return f"{len(items)} symbol{'s' if len(items) > 1 else ''}"


def _owners(items: _Items) -> str:
    return ", ".join(dict.fromkeys(str(item["owner"]) for item in items))


def _missing(items: _Items, around: Surroundings) -> _Text:
    text = f"it needs {_are(items)} that nothing in {around.release} has: {_names(items)}"
    if len(items) <= MOST_GUESSES:
        names = list(around.exported)
        near = [f"{item['symbol']} is like {found[0]}" for item in items if (found := alike(item["symbol"], names))]
        text += f" ({'; '.join(near)})" if near else ""
    return text, {}


def alike(name: str, exported: list[str]) -> list[str]:
    """An exported name that differs by a prefix or suffix, or by a letter."""
    plain = name.strip("_")
    close = [known for known in exported if known != name and abs(len(known) - len(name)) <= 8 and plain in known]
    if close:
        return sorted(close, key=len)[:1]
    import difflib  # for names that are not there only

    same_start = [known for known in exported if known[:3] == name[:3] and abs(len(known) - len(name)) <= 2]
    return difflib.get_close_matches(name, same_start, n=1, cutoff=0.85)


def _gpl_only(items: _Items, around: Surroundings) -> _Text:
    return f"its licence is not GPL-compatible, and it needs {_are(items)} for GPL modules only: {_names(items)}", {}


def _proprietary(items: _Items, around: Surroundings) -> _Text:
    return (
        f"it uses GPL-only symbols, and {_are(items)} of a proprietary module ({_owners(items)}): {_names(items)}",
        {},
    )


def _version(items: _Items, around: Surroundings) -> _Text:
    owners = [owner for owner in dict.fromkeys(item["owner"] for item in items) if owner != KERNEL]
    whose = f" (some of {', '.join(owners)})" if owners else ""
    lacking = [item for item in items if item["built"] is None]
    if len(lacking) == len(items):
        return f"it has no version (CRC) of {_are(items)}: {_names(items)}", {}
    shown = ", ".join(f"{item['symbol']} {item['built']} here {item['expected']}" for item in items[:3])
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return f"{_are(items)} changed since it was built, by their CRCs{whose}: {shown}{more}", {}


def _namespace(items: _Items, around: Surroundings) -> _Text:
    spaces = list(dict.fromkeys(str(item["namespace"]) for item in items))
    imports = " ".join(f"MODULE_IMPORT_NS({space});" for space in spaces)
    text = f"it does not import the namespace {', '.join(spaces)} of {_are(items)}: {_names(items)}"
    return text, {"imports": imports}


def _not_loaded(items: _Items, around: Surroundings) -> _Text:
    owners = ", ".join(dict.fromkeys(str(item["exporters"][0]) for item in items))
    return f"it needs {_are(items)} of modules that are not loaded ({owners}): {_names(items)}", {"owners": owners}


def _not_exported(items: _Items, around: Surroundings) -> _Text:
    return f"{around.release} has {_names(items)}, but does not export {'them' if len(items) > 1 else 'it'}", {}


def _lacking(items: _Items, around: Surroundings) -> _Text:
    lacking = ", ".join(around.lacking)
    text = f"it depends on {lacking}, which is not in {around.files.place}"
    return f"{text}, and needs {_are(items)} that nothing else has: {_names(items)}", {}


def _bare(items: _Items, around: Surroundings) -> _Text:
    return f"the bare kernel does not have {_are(items)} that it needs: {_names(items)}", {}


def _busy(items: _Items, around: Surroundings) -> _Text:
    owners = _owners(items)
    return f"it needs {_are(items)} of {owners}, which is being loaded or removed: {_names(items)}", {"owners": owners}


_TEXTS: dict[str, Callable[[_Items, Surroundings], _Text]] = {
    "symbol-missing": _missing,
    "symbol-gpl-only": _gpl_only,
    "symbol-proprietary": _proprietary,
    "symbol-version": _version,
    "symbol-namespace": _namespace,
    "symbol-not-exported": _not_exported,
    "symbol-busy": _busy,
    "bare-lacks": _bare,
    "dependency-not-loaded": _not_loaded,
    "dependency-missing": _lacking,
}
