"""One file on its way through a load, as the kernel's loader would take it, without stopping at the first refusal.

The steps are the loader's (``kernel.loader``), the rules are ``link``'s and ``sign``'s: here they are asked on, where
the kernel would have given up. What a load meets only by running code (init, callbacks of parameters, notifiers) is not
judged.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kobox import link, sign
from kobox.abi import taint
from kobox.elf.constants import EM, name_of
from kobox.errors import BadFile, Errno
from kobox.image.btf import module_btf
from kobox.ko import split_signature
from kobox.link import Exports, LoadView, LogLine, Refusal, Taint
from kobox.link.linked import AREA_SIZE, MODULE_AREA, PERCPU_BASE, read_exports
from kobox.link.policy import find_symbol
from kobox.sign import read_certificate
from kobox.verdict.faults import FAULTS, READABLE, what_it_is
from kobox.verdict.fixes import fix_of
from kobox.verdict.gate_reasons import GATE_REASONS
from kobox.verdict.linking import Lenient, Linking, limits
from kobox.verdict.records import MODPROBE, STEPS, Needed, Reason, Subject, Verdict
from kobox.verdict.settings import Linked, Outcome, parameters_of, try_settings
from kobox.verdict.signature import signature_note, signature_reason, signer_of
from kobox.verdict.symbols import Surroundings, strong_undefined, symbol_reasons
from kobox.verdict.tally import Tally

if TYPE_CHECKING:
    from kobox.verdict.session import Session

IGNORE_MODVERSIONS, IGNORE_VERMAGIC = 1, 2
_PAGE = 4096
CERTIFICATES = ("var/lib/dkms/mok.pub", "var/lib/shim-signed/mok/MOK.der", "root/.mok/client.der")
"""Where DKMS, shim's tools and instructions leave the machine owner's certificate."""
_UNSAFE, _UNSIGNED = 1 << 6, 13


class Judging(Tally):
    """One file on its way through the steps."""

    def __init__(self, session: Session, subject: Subject, flags: int, alone: bool, there: Iterable[str] = ()) -> None:
        super().__init__(subject, session.host, session.state)
        self.session, self.flags, self.alone = session, flags, alone
        self.there = frozenset(there)
        self.needed: list[Needed] = []
        self.lacking: list[str] = []
        self.facts: dict[str, Any] = {}
        self.exports: Exports | None = None
        self.trusted = False

    # -- the steps ------------------------------------------------------------------------------------------------

    def run(self, parameters: str, raw: bool) -> None:
        check, signer = self._read_signature()
        body = self.subject.data[: check.verdict.length]
        view, faults = link.faults_of(body, self.host.rules, bool(self.flags & IGNORE_MODVERSIONS))
        self.name = view.mod_name if view is not None else self._name_by_file()
        if view is not None:
            self.facts |= {"vermagic": view.info("vermagic"), "license": view.info("license")}
        if not raw:
            self.step = "modprobe"
            reasons, notes = self.session.modprobe_reasons(self.name, self.subject.file)
            self.reasons += reasons
            self.notes += notes
            if self.subject.compression is not None:
                self.note("compressed", f"{self.subject.compression}: whoever loads it must unpack it, as kmod does")
            if self.session.files.is_builtin(self.name):
                self.note("builtin", f"{self.name} is part of this kernel: modprobe {self.name} loads nothing")
        sound = all(fault.check in READABLE for fault in faults)
        if view is not None and sound and not self.alone:
            self._dependencies(view)
        self._permission()
        if not self.subject.data:
            self.refuse("not-elf", errno.EINVAL, "it is empty")
        self._signature(check, signer)
        self._file(faults, body)
        if view is None:
            return
        self._gates(view)
        if not sound:
            self.note("not-judged", "symbols, relocations and parameters are judged when the file itself is sound")
            return
        try:
            self._link(view, parameters, raw)
        except Errno as refusal:
            self.refused("layout", refusal, f"its sections do not fit together: {refusal.why}")
        self._finish()

    def _name_by_file(self) -> str:
        base = os.path.basename(self.subject.file)
        return base.partition(".")[0].replace("-", "_")

    def _read_signature(self) -> tuple[sign.Check, Any]:
        check = self.host.check_signature(self.subject.data, self.flags, self.session.comm)
        signer = signer_of(split_signature(self.subject.data)[1], self.subject.file)
        if signer is not None:
            self.facts |= {"signer": signer.name, "key": (signer.key_id or signer.serial).hex()}
        return check, signer

    def _permission(self) -> None:
        self.step = "permission"
        policy, config = self.host.policy, self.host.image.config
        if config.text.strip() and config.get("MODULES") != "y":
            self.refuse("no-module-support", errno.ENOSYS, "this kernel cannot load modules")
        if not policy.capable:
            self.note(
                "not-capable", "this process may not load modules (no CAP_SYS_MODULE): root outside a container may"
            )
        if policy.disabled:
            self.refuse("modules-disabled", errno.EPERM, f"modules are disabled: {policy.disabled_by}")

    def _signature(self, check: sign.Check, signer: Any) -> None:
        self.step = "signature"
        self.trusted = check.ok
        findings = tuple(LogLine(line.level, line.text) for line in check.lines)
        reason = signature_reason(check, self.host.policy, lambda: self.host.rings, signer)
        if check.verdict.number == errno.ENOKEY:
            self._note_certificate()
        if reason is not None:
            self.reasons.append(reason)
            self.stop(check.number, findings)
            return
        self.say(findings)
        note = signature_note(check, signer)
        if note is not None:
            self.notes.append(note)
        elif check.verdict.key is not None:
            self.facts["trusted_key"] = check.verdict.key.description

    def _note_certificate(self) -> None:
        """The signer's certificate may lie where tools leave it, not enrolled."""
        root = self.host.system.root if self.host.system is not None else None
        for place in CERTIFICATES if root is not None else ():
            path = f"{root}/{place}"
            with suppress(OSError, BadFile):
                if self.host.enrolling(read_certificate(path), self.subject.data):
                    self.note("certificate-at-hand", f"its signer's certificate is {path}: mokutil --import {path}")
                    return

    def _file(self, faults: Sequence[link.Fault], body: bytes) -> None:
        self.step = "check"
        for fault in faults:
            rule, text = FAULTS.get(fault.check, ("elf", "the file is not sound"))
            if rule == "architecture":
                machine = int.from_bytes(body[18:20], "little")
                text = f"it is built for {name_of(EM, machine)}, this kernel is x86-64"
            elif rule == "not-elf":
                text = what_it_is(body)
            said = [line.text for line in fault.refusal.log]
            self.refused(rule, fault.refusal, f"{text}: {said[0]}" if said and rule == "elf" else text)

    def _gates(self, view: LoadView) -> None:
        kernel = link.Against(
            self.host.rules,
            self._exporters(),
            self.host.image.vermagic,
            blacklist=self.host.policy.blacklist,
            ignore_vermagic=bool(self.flags & IGNORE_VERMAGIC),
            spectre_v2=self.host.policy.spectre_v2,
        )
        for gate in link.FILE_GATES:
            now = kernel._replace(taints=self.taints)
            try:
                found = gate.check(view, now)
            except Refusal as refusal:
                GATE_REASONS[gate.name](self, view, now, refusal)
            else:
                self.say(found)
        self._note_what_is_forced(view)
        if view.info("vermagic") and not self.flags & IGNORE_VERMAGIC:
            self._note_other_release(view)

    def _note_what_is_forced(self, view: LoadView) -> None:
        """What makes a lenient kernel load without looking, and taint itself (F)."""
        if self.has("forced-load"):
            return
        unversioned = not view.index.vers and not view.index.vers_ext_crc
        if unversioned and self.host.rules.modversions and self.host.kernel.export("module_layout"):
            self.note(
                "no-versions", "it has no symbol versions (__versions): the kernel takes it unchecked and taints (F)"
            )
        if view.info("vermagic") is None:
            self.note("no-vermagic", "it has no vermagic: the kernel takes it unchecked and taints itself (F)")

    def _note_other_release(self, view: LoadView) -> None:
        magic, here = view.info("vermagic") or "", self.host.image.vermagic
        if magic.partition(" ")[0] != here.partition(" ")[0] and not self.has("vermagic"):
            text = f"built for {magic.partition(' ')[0]}: with symbol versions the release does not count, the CRCs do"
            self.note("other-release", text)

    # -- other modules --------------------------------------------------------------------------------------------

    def _exporters(self) -> list[link.Exporter]:
        return [self.host.kernel, *self.state.exporters]

    def _missing(self, view: LoadView) -> list[str]:
        exporters = self._exporters()
        return [name for name in strong_undefined(view) if find_symbol(exporters, name) is None]

    def _dependencies(self, view: LoadView) -> None:
        """Have loaded what the file says it needs, then whoever exports what is still missing."""
        self.step = "modprobe"
        missing = self._missing(view)
        asked: set[str] = set()
        for name in link.linked.depends(view) if missing else ():
            asked.add(name)
            if not self._depend(name) and not self.session.files.is_builtin(name):
                self.lacking.append(name)
        for symbol in self._missing(view):
            for name in self.session.files.exporters_of(symbol):
                if name not in asked and name != self.name:
                    asked.add(name)
                    self._depend(name)
        if missing:
            self._count(missing)
        self.taints = self.kernel_taints = self.state.taints

    def _depend(self, name: str) -> bool:
        verdict, path = self.session.depend(name)
        if verdict is None:
            return bool(path)
        there = verdict.module in self.there
        own = Needed(verdict.module, "" if there else path, 0, verdict.loads or there)
        for needed in (*verdict.needed, own):
            if needed.name not in {known.name for known in self.needed}:
                self.needed.append(needed)
        if not verdict.loads and not there:
            why = verdict.reasons[0]
            text = f"it needs {verdict.module}, which does not load itself: {why.text}"
            item = {"module": verdict.module, "path": path, "rule": why.rule}
            fix = fix_of("dependency-refused", path=path)
            self.reasons.append(
                Reason("dependency-refused", "modprobe", verdict.errno, text, fix, verdict.log, MODPROBE, (item,))
            )
            if self.reached:
                self.log += verdict.log
                self.errno, self.reached = verdict.errno, False
        return True

    def _count(self, missing: list[str]) -> None:
        """How many of the missing symbols each of the modules provides."""
        counts: dict[str, int] = {}
        for name in missing:
            found = find_symbol(self.state.exporters, name)
            if found is not None:
                counts[found[0].name] = counts.get(found[0].name, 0) + 1
        self.needed = [needed._replace(symbols=counts.get(needed.name, 0)) for needed in self.needed]

    # -- memory, symbols, relocations -----------------------------------------------------------------------------

    def _link(self, view: LoadView, parameters: str, raw: bool) -> None:
        rules = self.host.rules
        self.step = "allocate"
        try:
            layout = link.lay_out(view, rules)
        except Errno as refusal:
            self.refused("layout", refusal, f"its sections cannot be laid out: {refusal.why}")
            return
        size = sum(region.size for region in layout.regions.values())
        if size > AREA_SIZE:
            text = f"it wants {size >> 20} MiB, more than all modules together may have"
            warns = "execmem_alloc" in self.host.image.symbols  # the kernels that have it say so
            said = (LogLine(4, "execmem: unable to allocate memory"),) if warns else ()
            self.refuse("no-memory", errno.ENOMEM, text, said)
            return
        bases, at = {}, MODULE_AREA + 0x1FF * _PAGE  # as if other modules lay before it
        for name, region in layout.regions.items():
            bases[name] = at
            at += -(-region.size // _PAGE) * _PAGE + _PAGE  # a guard page, as behind all memory of vmalloc()
        work = Linking(view, layout, bases, self.host.vmalloc)
        self._reserve(view, layout)
        work.fill_in_module(self.host.image.btf.struct("module"), link.find_tables(view, work.addresses, rules))
        if self._bind(work):
            self._form(work)
            self._types(view)
            self._settings(work, parameters, raw)

    def _reserve(self, view: LoadView, layout: link.Layout) -> None:
        self.step = "name"
        built = bytes(view.contents(view.index.mod))
        room = self.host.image.btf.struct("module").member("name")
        if b"\0" not in built[room.offset : room.offset + room.size].ljust(room.size, b"\0"):
            self.refuse("name-too-long", 0, "its name has no end: the kernel stops with a BUG")
        elif view.mod_name in self.state.names and view.mod_name not in self.there:
            self.refuse("already-loaded", errno.EEXIST, f"a module named {view.mod_name} is loaded already")
        self.step = "unsigned"
        if not self.trusted:
            self.say(link.unsigned_taint(view))
        self.step = "tables"
        limit = limits()["percpu_reserve"]
        if layout.percpu_size > limit:
            line = LogLine(4, f"{view.mod_name}: Could not allocate {layout.percpu_size} bytes percpu data")
            text = f"its static per-CPU data ({layout.percpu_size} bytes) exceeds what modules may have ({limit} bytes)"
            self.refuse("percpu", errno.ENOMEM, text, (line,))
        try:
            self.say(
                link.check_module_license_and_versions(
                    view, self.host.rules, self.taints,
                    has_unversioned_exports=link.has_unversioned_exports(view, self.host.rules),
                )
            )  # fmt: skip
        except Refusal as refusal:
            text = "its exports have no versions, and this kernel does not allow forced loading"
            self.refused("forced-load", refusal, text)

    def _bind(self, work: Linking) -> bool:
        """Symbols and relocations; whether the module could be relocated, if need be with made-up addresses."""
        self.step = "link"
        view = work.view
        resolver = link.Resolver(view, self._exporters(), self.host.rules, self.taints, self.own_taints)
        symbols = link.simplify(view, work.addresses, PERCPU_BASE, resolver)
        self.say(symbols.findings)
        before, self.own_taints = self.own_taints, resolver.of_module | self.own_taints
        for bit in range(64):
            if self.own_taints & ~before & 1 << bit:
                self.say((Taint(link.TaintBit(bit), lockdep_off=True),))
        if symbols.error:
            around = Surroundings(
                self._exporters(), self.host.image.exports, self.host.image.symbols.__contains__, self.session.files,
                tuple(self.lacking), self.host.image.release, self.subject.file, self.host.is_whole,
            )  # fmt: skip
            self.reasons += symbol_reasons(view, symbols, resolver, around)
            self.stop(symbols.error)
            symbols = link.simplify(view, work.addresses, PERCPU_BASE, Lenient(symbols.bound))
        work.bound = {found.value: name for name, found in symbols.bound.items() if found.found}
        try:
            link.relocate(
                view, work.layout, work.addresses, work.windows, symbols, memory=work.memory, livepatch=self._livepatch
            )
        except Errno as refusal:
            if not symbols.error or isinstance(refusal, Refusal):
                said = [line.text for line in refusal.log] if isinstance(refusal, Refusal) else []
                self.refused("relocation", refusal, f"its code cannot be placed: {said[0] if said else refusal.why}")
            return False
        return True

    def _livepatch(self, owner: str, name: str) -> tuple[int, ...]:
        return tuple(self.host.image.symbols.all(name)) if owner == link.VMLINUX else ()

    def _form(self, work: Linking) -> None:
        """What it would export, and whether somebody does already."""
        self.step = "form"
        view = work.view
        tables = link.find_tables(view, work.addresses, self.host.rules)
        try:
            exports = read_exports(view, work.addresses, work.windows, tables)
        except Errno as refusal:
            self.refused("elf", refusal, f"its table of exports cannot be read: {refusal.why}")
            return
        others = [exporter for exporter in self._exporters() if exporter.name != view.mod_name]
        taken = []
        for name in exports:
            try:
                link.verify_exported_symbols(view, (name,), others)
            except Refusal as refusal:
                owner = find_symbol(others, name)
                taken.append(({"symbol": name, "owner": owner[0].name if owner else ""}, refusal))
        if taken:
            items = [item for item, _ in taken]
            owners = ", ".join(dict.fromkeys(item["owner"] for item in items))
            shown = ", ".join(item["symbol"] for item in items[:6]) + (" …" if len(items) > 6 else "")
            text = f"it exports what {owners} exports already: {shown}"
            self.refuse("export-duplicate", errno.ENOEXEC, text, taken[0][1].findings, items=items)
        self.exports = Exports(view.mod_name, exports, self.own_taints)
        work.table = tables.get("kp")

    def _types(self, view: LoadView) -> None:
        """The module's type information must fit the kernel's, unless the kernel was built not to mind."""
        self.step = "coming"
        number, config = view.find_any(".BTF"), self.host.image.config
        if not number or config.get("DEBUG_INFO_BTF_MODULES") != "y":
            return
        base = view.find_any(".BTF.base")
        distilled = bytes(view.contents(base)) if base else None
        try:
            module_btf(bytes(view.contents(number)), self.host.image.btf, distilled=distilled)
        except BadFile as fault:
            text = f"its type information (.BTF) was made for another build of the kernel: {fault.what}"
            if config.get("MODULE_ALLOW_BTF_MISMATCH") == "y":
                self.note("btf", f"{text}; this kernel loads it all the same, without them")
                return
            line = LogLine(4, f"failed to validate module [{view.mod_name}] BTF: -{errno.EINVAL}")
            self.refuse("btf", errno.EINVAL, text, (line,))

    def _settings(self, work: Linking, parameters: str, raw: bool) -> None:
        self.step = "parameters"
        view = work.view
        given = [] if raw else self.session.settings(view.mod_name)
        arguments = " ".join([*(text for text, _ in given), parameters]).strip()
        linked = Linked(self.host.image, work.memory, work.bases, work.bound)
        locked = self.host.policy.lockdown is not sign.Lockdown.NONE
        outcome = try_settings(
            view.mod_name, arguments.encode("latin-1", "replace"), linked, work.table, locked=locked,
            comm=self.session.comm,
        )  # fmt: skip
        self._settings_notes(outcome, given)
        lines = tuple(LogLine(line.level, line.text) for line in outcome.lines)
        if outcome.error:
            number = -outcome.error
            rule = "parameter-lockdown" if number == errno.EPERM and locked else "parameter"
            said = "; ".join(str(item["line"]).partition(": ")[2] for item in outcome.refused)
            places = ", ".join(dict.fromkeys(place for _, place in given))
            text = f"a parameter is not accepted: {said}" + (f" (from {places})" if places else "")
            self.refuse(rule, number, text, lines, items=outcome.refused)
        else:
            self.say(lines)
        self._sysfs(view, [parameter.name for parameter in parameters_of(linked, work.table) if parameter.perm])

    def _settings_notes(self, outcome: Outcome, given: Sequence[tuple[str, str]]) -> None:
        for name in outcome.unknown:
            places = [place for text, place in given if name in text]
            where = f" ({places[0]})" if places else ""
            self.note("unknown-parameter", f"it has no parameter '{name}'{where}: the kernel logs that and goes on")
        if outcome.unsafe and self.reached:
            self.kernel_taints |= _UNSAFE
        if outcome.unsafe:
            self.taints |= _UNSAFE
        if outcome.undecided:
            names = ", ".join(outcome.undecided)
            self.note("own-parameter", f"the module's own code judges the value of {names}")

    def _sysfs(self, view: LoadView, visible: list[str]) -> None:
        self.step = "sysfs"
        name = view.mod_name
        if not name:
            line = LogLine(4, "kobject: ((____ptrval____)): attempted to be registered with empty name!")
            self.refuse("name-empty", errno.EINVAL, "its name is empty", (line,))
        if name in self.host.objects:
            line = LogLine(3, f"{name}: module is already loaded")
            text = f"the kernel has built-in code named {name} in /sys/module"
            self.refuse("builtin-name", errno.EINVAL, text, (line,))
        twice = [parameter for number, parameter in enumerate(visible) if parameter in visible[:number]]
        if twice:
            line = LogLine(4, f"sysfs: cannot create duplicate filename '/module/{name}/parameters/{twice[0]}'")
            items = [{"parameter": parameter} for parameter in twice]
            text = f"it has two parameters of one name: {', '.join(twice)}"
            self.refuse("parameter-twice", errno.EEXIST, text, (line,), items=items)

    # -- the end --------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        for flag in taint.FLAGS:
            if flag.bit == _UNSIGNED and any(note.rule.startswith("signature-") for note in self.notes):
                continue  # said there
            if self.own_taints >> flag.bit & 1 or (self.taints & ~self.state.taints) >> flag.bit & 1:
                verb = "taints" if self.reached else "would taint"
                self.note("taint", f"{verb} {flag.letter} ({1 << flag.bit}): {flag.meaning}")

    def take(self) -> None:
        """The module is loaded from now on."""
        self.state.names.add(self.name)
        if self.exports is not None:
            self.state.exporters.insert(0, self.exports)

    def verdict(self) -> Verdict:
        loads = not self.reasons
        self.state.taints = self.kernel_taints
        if loads and self.name not in self.state.names:
            self.take()
        order = {step: number for number, step in enumerate(STEPS)}
        reasons = sorted(self.reasons, key=lambda reason: order[reason.step])
        return Verdict(
            file=self.subject.file, module=self.name, target=self.host.label, release=self.host.image.release,
            loads=loads, errno=self.errno, reasons=tuple(reasons), notes=tuple(self.notes),
            needed=tuple(self.needed), log=tuple(self.log), taint=self.kernel_taints, module_taint=self.own_taints,
            facts=self.facts,
        )  # fmt: skip
