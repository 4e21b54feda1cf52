"""One kernel, and the modules that are held against it one after the other.

``Session.load`` judges one file, after the modules that it needs, by ``judge``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from kobox.depot.commands import FAILS, SUCCEEDS, command_effect
from kobox.depot.rules import Rules as ConfigRules
from kobox.errors import BadFile
from kobox.kernel import params
from kobox.ko import decompress, format_of
from kobox.verdict.files import ModuleFiles
from kobox.verdict.fixes import fix_of
from kobox.verdict.host import Host
from kobox.verdict.judge import IGNORE_MODVERSIONS, IGNORE_VERMAGIC, Judging
from kobox.verdict.records import MODPROBE, Note, Reason, Subject, Verdict
from kobox.verdict.tally import LOCKDEP, State

FORCE = IGNORE_MODVERSIONS | IGNORE_VERMAGIC
"""What insmod -f asks of the kernel."""
_LOCKDEP_OFF = 3
"""Taints (P, F) whose first one ends lock debugging."""


class Session:
    """One kernel, and the modules that were loaded into it one after the other as far as files tell."""

    def __init__(self, host: Host, folders: Sequence[str] = (), comm: str = "insmod") -> None:
        self.host, self.comm = host, comm
        self.files = ModuleFiles(folders, host.tree)
        said = {LOCKDEP} if host.policy.taints & _LOCKDEP_OFF else set()
        self.state = State(host.policy.taints, said, names=set(host.policy.loaded))
        self._config = ConfigRules(host.system.config) if host.system is not None else None
        self._busy: set[str] = set()
        self._dependencies: dict[str, Verdict] = {}

    def load(
        self, subject: Subject, parameters: str = "", flags: int = 0, *, alone: bool = False, raw: bool = False
    ) -> Verdict:
        """Judge a file; if it loads, it is loaded from now on.

        ``alone``: as insmod does it, nothing is loaded before it. ``raw``: as the bare system call, without what
        modprobe's configuration and the command line add.
        """
        judging = Judging(self, subject, flags, alone or raw)
        judging.run(parameters, raw)
        return judging.verdict()

    def unload(self, name: str) -> None:
        """The module is gone."""
        self.state.names.discard(name)
        self.state.exporters = [exporter for exporter in self.state.exporters if exporter.name != name]

    def settings(self, name: str) -> list[tuple[str, str]]:
        """(options, place) that modprobe would add for a module: of its configuration and the kernel command line."""
        if self._config is not None:
            return [(line.options, str(line.place)) for line in self._config.options_of(name, None)]
        given = params.command_line_settings(self.host.cmdline, name)
        return [(text, "the kernel command line") for text in given]

    def modprobe_reasons(self, name: str, file: str) -> tuple[list[Reason], list[Note]]:
        """What configuration and indexes have against ``modprobe NAME`` loading this file."""
        reasons: list[Reason] = []
        notes: list[Note] = self._index_notes(name, file)
        rules = self._config
        if rules is None:
            return reasons, notes
        command = rules.install(name)
        if command is not None and rules.softdep(name) is None:
            text = f"modprobe runs '{command.command}' instead of loading it ({command.place})"
            if command_effect(command.command) in (FAILS, SUCCEEDS):
                fix = fix_of("install-command", name=name)
                reasons.append(Reason("install-command", "modprobe", 0, text, fix, by=MODPROBE))
            else:
                notes.append(Note("install-command", text))
        for line in rules.config.blacklists:
            if line.module == name:
                text = f"blacklist {line.module} ({line.place}): no device loads it by an alias; modprobe {name} does"
                notes.append(Note("blacklist", text))
        return reasons, notes

    def _index_notes(self, name: str, file: str) -> list[Note]:
        """A file of the tree that modprobe does not know, or knows another file instead of."""
        tree = self.host.tree
        if self.host.system is None or tree is None or not os.path.realpath(file).startswith(tree.directory + "/"):
            return []
        known = tree.find(name)
        if known is None:
            return [Note("not-indexed", f"modprobe does not know it: depmod has not seen it in {tree.directory}")]
        if os.path.realpath(known) != os.path.realpath(file):
            return [Note("shadowed", f"modprobe {name} loads another file: {known}")]
        return []

    def depend(self, name: str) -> tuple[Verdict | None, str]:
        """Have a module loaded that another one needs: its verdict, and its file. None: there is no file, or it is
        being looked at already."""
        path = self.files.file_of(name)
        if path is None or name in self._busy:
            return None, path or ""
        if path not in self._dependencies:
            self._busy.add(name)
            try:
                self._dependencies[path] = self._load_dependency(path)
            finally:
                self._busy.discard(name)
        return self._dependencies[path], path

    def _load_dependency(self, path: str) -> Verdict:
        judging = Judging(self, read_subject(path), 0, alone=False, there=self.state.names)
        judging.run("", raw=False)
        judging.take()  # whether it loads or not: what it offers counts for what needs it
        return judging.verdict()


def judge_files(
    files: Iterable[str],
    hosts: Iterable[Host],
    parameters: str = "",
    flags: int = 0,
    *,
    alone: bool = False,
    before: Sequence[str] = (),
) -> list[Verdict]:
    """Every file on every kernel, each on its own; ``before`` are files that are loaded first, in this order."""
    found = []
    hosts = list(hosts)
    subjects = [(file, read_subject(file)) for file in files]
    first = [read_subject(file) for file in before]
    for host in hosts:
        for file, subject in subjects:
            session = Session(host, [os.path.dirname(file)])
            for other in first:
                session.load(other)
            verdict = session.load(subject, parameters, flags, alone=alone)
            found.append(_with_other_kernels(verdict, [other for other in hosts if other is not host]))
    return found


def _with_other_kernels(verdict: Verdict, others: Sequence[Host]) -> Verdict:
    """Missing symbols with those of the other kernels that have them."""
    reasons = []
    for reason in verdict.reasons:
        if reason.rule == "symbol-missing" and others:
            items = [item | {"elsewhere": _who_has(str(item["symbol"]), others)} for item in map(dict, reason.items)]
            there = list(dict.fromkeys(label for item in items for label in item["elsewhere"]))
            text = f"{reason.text}; {', '.join(there)} has some of them" if there else reason.text
            reason = reason._replace(items=tuple(items), text=text)
        reasons.append(reason)
    return verdict._replace(reasons=tuple(reasons))


def _who_has(symbol: str, hosts: Sequence[Host]) -> list[str]:
    return [host.label for host in hosts if host.kernel.export(symbol) is not None]


def read_subject(path: str) -> Subject:
    """Read and unpack a file; any content will do. What cannot be unpacked is judged as it is."""
    with open(path, "rb") as file:
        raw = file.read()
    try:
        return Subject(path, bytes(decompress(raw, path)), format_of(raw))
    except BadFile:
        return Subject(path, raw)
