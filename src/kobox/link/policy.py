"""The kernel's rules about who may use what: exports, GPL, namespaces, versions, licences, vermagic.

Follows ``find_symbol``, ``resolve_symbol``, ``check_version``, ``check_modinfo`` and their neighbours in kernel/module.
Pure functions on records, shared by the loader (which prints and taints from the findings, in their order) and by
whoever explains why a module will not load. State that grows while a module's symbols are resolved is in ``Resolver``.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple, Protocol

from kobox.elf.gate import text
from kobox.link.findings import Finding, Level, LogLine, Refusal, Taint, TaintBit
from kobox.link.resolve import MISSING, Resolution
from kobox.link.rules import Rules
from kobox.link.validity import LoadView

GPL_COMPATIBLE = frozenset(
    {"GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"}
)
KERNEL = "kernel"
"""What the kernel calls itself where a module's name is asked for (``module_name(NULL)``)."""

_VERSION = Struct("<Q56s")
_CRC = Struct("<I")


class Export(NamedTuple):
    """One exported symbol. ``crc`` is None where the exporter has no versions."""

    name: str
    value: int
    gpl: bool = False
    namespace: str = ""
    crc: int | None = None


class Exporter(Protocol):
    """Whoever exports symbols: the kernel itself or a loaded module."""

    @property
    def name(self) -> str:
        """Module name, or ``KERNEL``."""

    @property
    def taints(self) -> int:
        """The module's own taint bits as a mask; 0 for the kernel."""

    @property
    def unavailable(self) -> int:
        """0 when it can be referenced, EBUSY while it is being loaded, ENOENT while it is being removed."""

    def export(self, name: str) -> Export | None:
        """What it exports under ``name``."""


@dataclass(frozen=True, slots=True, eq=False)
class Exports:
    """An ``Exporter`` made from a plain mapping."""

    name: str
    table: Mapping[str, Export]
    taints: int = 0
    unavailable: int = 0

    def export(self, name: str) -> Export | None:
        return self.table.get(name)


def find_symbol(exporters: Iterable[Exporter], name: str, gpl_ok: bool = True) -> tuple[Exporter, Export] | None:
    """The first exporter that offers ``name`` to such a module: the kernel first, then modules, newest first."""
    for exporter in exporters:
        export = exporter.export(name)
        if export is not None and (gpl_ok or not export.gpl):
            return exporter, export
    return None


def license_is_gpl_compatible(license: str) -> bool:
    """Exactly one of the six texts; spelling and case count."""
    return license in GPL_COMPATIBLE


def same_magic(module: str, kernel: str, has_crcs: bool) -> bool:
    """Compare vermagic texts; with CRCs the first word, the release, does not count."""
    if has_crcs:
        module, kernel = module[_first_word(module) :], kernel[_first_word(kernel) :]
    return module == kernel


def _first_word(magic: str) -> int:
    return len(magic.partition(" ")[0])


def blacklisted(name: str, blacklist: str) -> bool:
    """Is the name one of the comma-separated names of the ``module_blacklist=`` boot parameter?"""
    return bool(blacklist) and name in blacklist.split(",")


def read_versions(view: LoadView) -> dict[str, int] | None:
    """Name to CRC as the module was built; of doubles the first counts. None where the module has no versions."""
    index = view.index
    if not index.vers and not index.vers_ext_crc:
        return None
    found: dict[str, int] = {}
    if index.vers_ext_crc:
        names = bytes(view.contents(index.vers_ext_name)).split(b"\0")
        crcs = view.contents(index.vers_ext_crc)
        for name, (crc,) in zip(names, _CRC.iter_unpack(crcs[: len(crcs) // 4 * 4]), strict=False):
            found.setdefault(text(name), crc)
    rows = view.contents(index.vers) if index.vers else memoryview(b"")
    for crc, padded in _VERSION.iter_unpack(rows[: len(rows) // _VERSION.size * _VERSION.size]):
        found.setdefault(text(padded.partition(b"\0")[0]), crc)
    return found


def force_load(view: LoadView, rules: Rules, reason: str, taints: int) -> list[Finding]:
    """Taint, if the kernel allows forcing at all; else raise ``Refusal``. ``taints`` is the kernel's mask so far."""
    if not rules.force_load:
        raise Refusal(errno.ENOEXEC, why=f"{reason}: this kernel does not allow forced loading")
    found: list[Finding] = []
    if not taints & 1 << TaintBit.FORCED:
        found.append(LogLine(Level.WARNING, f"{view.mod_name}: {reason}: kernel tainted."))
    found.append(Taint(TaintBit.FORCED, lockdep_off=True))
    return found


def check_version(
    view: LoadView, versions: Mapping[str, int] | None, name: str, crc: int | None, rules: Rules, taints: int
) -> tuple[bool, list[Finding]]:
    """Does the CRC the module was built with for ``name`` agree with the exporter's?"""
    if crc is None:
        return True, []
    if versions is None:
        try:
            return True, force_load(view, rules, name, taints)
        except Refusal:
            return False, []
    built = versions.get(name)
    if built == crc:
        return True, []
    what = "no symbol version for" if built is None else "disagrees about version of symbol"
    return False, [LogLine(Level.WARNING, f"{view.name}: {what} {name}")]


def check_modstruct_version(
    view: LoadView, exporters: Iterable[Exporter], rules: Rules, taints: int
) -> tuple[Finding, ...]:
    """The CRC of ``module_layout`` stands for ``struct module`` and what it contains. Raises ``Refusal`` (ENOEXEC)."""
    found = find_symbol(exporters, "module_layout")
    crc = found[1].crc if found and rules.modversions else None
    good, findings = check_version(view, read_versions(view), "module_layout", crc, rules, taints)
    if not good:
        raise Refusal(errno.ENOEXEC, findings)
    return tuple(findings)


def check_modinfo(
    view: LoadView,
    vermagic: str,
    rules: Rules,
    taints: int,
    *,
    ignore_vermagic: bool = False,
    spectre_v2: bool = True,
) -> tuple[Finding, ...]:
    """``check_vermagic`` and then ``metadata_taints``: what older kernels do in one step, before laying out memory.

    ``taints`` is the kernel's mask so far (some lines are said only once). Raises ``Refusal`` with all that was found.
    """
    found = check_vermagic(view, vermagic, rules, taints, ignore_vermagic=ignore_vermagic)
    try:
        return found + metadata_taints(view, rules, taints, spectre_v2=spectre_v2)
    except Refusal as refusal:
        raise Refusal(refusal.number, found + refusal.findings) from refusal


def check_vermagic(
    view: LoadView, vermagic: str, rules: Rules, taints: int, *, ignore_vermagic: bool = False
) -> tuple[Finding, ...]:
    """Was the module built for this kernel? Newer kernels ask here too whether they can livepatch."""
    magic = None if ignore_vermagic else view.info("vermagic")
    found: list[Finding] = []
    if magic is None:
        found += force_load(view, rules, "bad vermagic", taints)
    elif not same_magic(magic, vermagic, bool(view.index.vers)):
        line = f"{view.name}: version magic '{magic}' should be '{vermagic}'"
        raise Refusal(errno.ENOEXEC, (LogLine(Level.ERR, line),))
    if rules.memories:
        _need_livepatch(view, rules, found)
    return tuple(found)


def metadata_taints(view: LoadView, rules: Rules, taints: int, *, spectre_v2: bool = True) -> tuple[Finding, ...]:
    """What tree, retpoline, staging, livepatch, licence and test metadata taint, in the kernel's order.

    ``spectre_v2``: the kernel mitigates Spectre v2. Newer kernels do this once the module's name is reserved.
    """
    found = _tree_taints(view, taints, spectre_v2)
    if not rules.memories:
        _need_livepatch(view, rules, found)
    if view.info("livepatch") is not None:
        found.append(Taint(TaintBit.LIVEPATCH))
        found.append(LogLine(Level.NOTICE, f"{view.mod_name}: tainting kernel with TAINT_LIVEPATCH", once=True))
    license = view.info("license")
    license = "unspecified" if license is None else license
    if not license_is_gpl_compatible(license):
        if not taints & 1 << TaintBit.PROPRIETARY:
            found.append(LogLine(Level.WARNING, f"{view.mod_name}: module license '{license}' taints kernel."))
        found.append(Taint(TaintBit.PROPRIETARY, lockdep_off=True))
    if view.info("test") is not None:
        if not taints & 1 << TaintBit.TEST:
            found.append(LogLine(Level.WARNING, f"{view.mod_name}: loading test module taints kernel."))
        found.append(Taint(TaintBit.TEST))
    return tuple(found)


def _need_livepatch(view: LoadView, rules: Rules, found: Sequence[Finding]) -> None:
    if view.info("livepatch") is not None and not rules.livepatch:
        line = f"{view.mod_name}: module is marked as livepatch module, but livepatch support is disabled"
        raise Refusal(errno.ENOEXEC, (*found, LogLine(Level.ERR, line)))


def _tree_taints(view: LoadView, taints: int, spectre_v2: bool) -> list[Finding]:
    found: list[Finding] = []
    name = view.mod_name
    if view.info("intree") is None:
        if not taints & 1 << TaintBit.OOT:
            found.append(LogLine(Level.WARNING, f"{name}: loading out-of-tree module taints kernel."))
        found.append(Taint(TaintBit.OOT))
    if spectre_v2 and view.info("retpoline") is None:
        found.append(LogLine(Level.ERR, "Spectre V2 : System may be vulnerable to spectre v2"))
        found.append(LogLine(Level.WARNING, f"{name}: loading module not compiled with retpoline compiler."))
    if view.info("staging") is not None:
        found.append(Taint(TaintBit.CRAP))
        line = f"{name}: module is from the staging directory, the quality is unknown, you have been warned."
        found.append(LogLine(Level.WARNING, line))
    return found


def unsigned_taint(view: LoadView) -> tuple[Finding, ...]:
    """What a kernel that does not insist on signatures says of a module without one that it trusts."""
    text = "module verification failed: signature and/or required key missing - tainting kernel"
    return (LogLine(Level.NOTICE, f"{view.mod_name}: {text}", once=True), Taint(TaintBit.UNSIGNED))


#: Modules whose licence the kernel does not believe: taints kernel and module, or only the kernel.
_DISTRUSTED = {"ndiswrapper": False, "driverloader": True, "lve": True}


def check_module_license_and_versions(
    view: LoadView, rules: Rules, taints: int, *, has_unversioned_exports: bool
) -> tuple[Finding, ...]:
    """Modules known to lie about their licence, and exports without versions."""
    found: list[Finding] = []
    if view.mod_name in _DISTRUSTED:
        found.append(Taint(TaintBit.PROPRIETARY, of_module=_DISTRUSTED[view.mod_name], lockdep_off=True))
        if not taints & 1 << TaintBit.PROPRIETARY:
            found.append(LogLine(Level.WARNING, f"{view.mod_name}: module license taints kernel."))
    if rules.modversions and has_unversioned_exports:
        try:
            found += force_load(view, rules, "no versions for exported symbols", taints)
        except Refusal as refusal:
            raise Refusal(refusal.number, found, refusal.why) from refusal
    return tuple(found)


def has_unversioned_exports(view: LoadView, rules: Rules) -> bool:
    """Does the module export symbols without a table of their CRCs?"""
    entry = rules.sizes["kernel_symbol"]
    return any(
        view.sections[view.find(symbols)].size >= entry and not view.find(crcs)
        for symbols, crcs in (("__ksymtab", "__kcrctab"), ("__ksymtab_gpl", "__kcrctab_gpl"))
    )


def verify_exported_symbols(view: LoadView, names: Iterable[str], exporters: Collection[Exporter]) -> None:
    """Refuse a module that exports what someone already exports. Raises ``Refusal`` (ENOEXEC) for the first."""
    for name in names:
        found = find_symbol(exporters, name)
        if found:
            line = f"{view.mod_name}: exports duplicate symbol {name} (owned by {found[0].name})"
            raise Refusal(errno.ENOEXEC, (LogLine(Level.ERR, line),))


def is_named_in(namespace: str, module: str) -> bool:
    """Whether ``module:NAME,PREFIX*`` names the module; ``-`` and ``_`` are the same letter there."""
    kind, _, names = namespace.partition(":")
    if kind != "module":
        return False
    wanted = module.replace("-", "_")
    patterns = [name.replace("-", "_") for name in names.split(",")]
    return any(wanted.startswith(pattern[:-1]) if pattern.endswith("*") else wanted == pattern for pattern in patterns)


class Resolver:
    """Resolves one module's undefined names by the kernel's rules; call it with each name in turn.

    ``taints`` and ``of_module`` are the kernel's and the module's taint masks; they grow as symbols of proprietary
    modules or without versions are used. ``used`` lists the exporting modules so far, in the order of first use.
    """

    def __init__(
        self, view: LoadView, exporters: Collection[Exporter], rules: Rules, taints: int = 0, of_module: int = 0
    ) -> None:
        self.view, self.exporters, self.rules = view, exporters, rules
        self.taints, self.of_module = taints, of_module
        self.versions = read_versions(view)
        self._built: Mapping[str, int] = self.versions or {}
        self.imported = frozenset(view.info_all("import_ns"))
        self.using_gplonly = False
        self.used: list[Exporter] = []

    def __call__(self, name: str) -> Resolution:
        found = find_symbol(self.exporters, name, not self.of_module & 1 << TaintBit.PROPRIETARY)
        if found is None:
            return MISSING
        owner, export = found
        if export.gpl:
            self.using_gplonly = True
        agrees = export.crc is None or self._built.get(name) == export.crc or not self.rules.modversions
        if agrees and not export.namespace and owner.name == KERNEL:
            return Resolution(True, export.value, KERNEL)
        findings: list[Finding] = []
        if owner.taints & 1 << TaintBit.PROPRIETARY and not self._inherit(owner, name, findings):
            return Resolution(False, 0, owner.name, 0, tuple(findings))
        if not agrees:
            good, said = check_version(self.view, self.versions, name, export.crc, self.rules, self.taints)
            findings += said
            if self.versions is None and export.crc is not None and good:
                self.taints |= 1 << TaintBit.FORCED
                self.of_module |= 1 << TaintBit.FORCED
            if not good:
                return Resolution(True, 0, owner.name, errno.EINVAL, tuple(findings))
        if export.namespace and not self._namespace(export, findings):
            return Resolution(True, 0, owner.name, errno.EINVAL, tuple(findings))
        if owner.name != KERNEL and owner not in self.used:
            if owner.unavailable:
                return Resolution(True, 0, owner.name, owner.unavailable, tuple(findings))
            self.used.append(owner)
        return Resolution(True, export.value, owner.name, 0, tuple(findings))

    def _inherit(self, owner: Exporter, name: str, findings: list[Finding]) -> bool:
        who = self.view.mod_name
        if self.using_gplonly:
            line = f"{who}: module using GPL-only symbols uses symbols {name} from proprietary module {owner.name}."
            findings.append(LogLine(Level.ERR, line))
            return False
        if not self.of_module & 1 << TaintBit.PROPRIETARY:
            line = f"{who}: module uses symbols {name} from proprietary module {owner.name}, inheriting taint."
            findings.append(LogLine(Level.WARNING, line))
            self.of_module |= 1 << TaintBit.PROPRIETARY
        return True

    def may_use(self, namespace: str) -> bool:
        """Whether the module imports a namespace, or it is one that is open to certain modules by their names
        (``EXPORT_SYMBOL_FOR_MODULES``; kernel/module/main.c)."""
        return namespace in self.imported or is_named_in(namespace, self.view.mod_name)

    def _namespace(self, export: Export, findings: list[Finding]) -> bool:
        if self.may_use(export.namespace):
            return True
        line = (
            f"{self.view.mod_name}: module uses symbol ({export.name}) from namespace {export.namespace}, "
            "but does not import it."
        )
        lenient = self.rules.allow_missing_namespace
        findings.append(LogLine(Level.WARNING if lenient else Level.ERR, line))
        return lenient
