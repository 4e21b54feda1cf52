"""What an error text is about, looked up: the symbols and modules that it names, in the kernels that were given."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from kobox.verdict.advice import Fact, Match
from kobox.verdict.files import ModuleFiles
from kobox.verdict.host import Host
from kobox.verdict.records import Verdict
from kobox.verdict.session import judge_files
from kobox.verdict.symbols import alike

_MOST = 8
"""Names of one kind that are looked up: a log may hold hundreds."""


def judge_named(matched: Iterable[Match], hosts: Sequence[Host], *, alone: bool = False) -> list[Verdict]:
    """Files that the text names, or else modules of the tree of that name, held against the kernels; ``alone``: as
    insmod loads them."""
    names = [about for entry, about in matched if not entry.harmless]
    paths = [path for about in names for path in about.get("file", ()) if os.path.isfile(path)]
    if paths:
        return judge_files(dict.fromkeys(paths), hosts, alone=alone)
    verdicts: list[Verdict] = []
    for host in hosts:
        files = ModuleFiles((), host.tree)
        modules = dict.fromkeys(name for about in names for name in (*about.get("module", ()), *about.get("file", ())))
        found = [path for name in list(modules)[:_MOST] if (path := files.file_of(_plain(name))) is not None]
        verdicts += judge_files(found, [host], alone=alone)
    return verdicts


class Kernels:
    """The ``Lookup`` of ``advise``."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = [(host, ModuleFiles((), host.tree)) for host in hosts]

    def facts(self, about: Mapping[str, tuple[str, ...]]) -> list[Fact]:
        found = []
        for host, files in self._hosts:
            for symbol in about.get("symbol", ())[:_MOST]:
                found.append(_said(symbol, host, symbol_fact(symbol, host, files)))
            for module in about.get("module", ())[:_MOST]:
                found.append(_said(module, host, module_fact(module, host, files)))
        return found


def _said(name: str, host: Host, fact: Fact) -> Fact:
    return Fact(f"{name} in {host.label}: {fact.text}", fact.rule)


def _plain(name: str) -> str:
    return os.path.basename(name).partition(".")[0]


def symbol_fact(name: str, host: Host, files: ModuleFiles) -> Fact:
    """Who offers a symbol there, and to whom."""
    export = host.kernel.export(name)
    if export is not None:
        gpl = " to GPL modules only" if export.gpl else ""
        space = f", in namespace {export.namespace}" if export.namespace else ""
        crc = f", CRC {export.crc:#010x}" if export.crc is not None else ""
        return Fact(f"exported by the kernel{gpl}{space}{crc}", "symbol-gpl-only" if export.gpl else "")
    exporters = files.exporters_of(name)
    if exporters:
        text = f"exported by the module {', '.join(exporters)}, which must be loaded first"
        return Fact(text, "dependency-not-loaded")
    if name in host.image.symbols:
        return Fact("in the kernel, but not exported to modules", "symbol-not-exported")
    near = alike(name, list(host.image.exports))
    return Fact("not there" + (f"; there is {near[0]}" if near else ""), "symbol-missing")


def module_fact(name: str, host: Host, files: ModuleFiles) -> Fact:
    """Whether a module is there."""
    plain = _plain(name)
    if host.tree is None:
        return Fact("this kernel has no module tree here")
    path = files.file_of(plain)
    if path is not None:
        loaded = "loaded, " if plain.replace("-", "_") in host.policy.loaded else ""
        return Fact(f"{loaded}{path}")
    if files.is_builtin(plain):
        return Fact("built into the kernel", "builtin")
    near = files.names_like(plain)
    text = f"no module of that name in {files.place}" + (f"; there is {', '.join(near)}" if near else "")
    return Fact(text, "module-missing")
