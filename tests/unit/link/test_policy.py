"""Who may use which symbol, and what the kernel says about it."""

from __future__ import annotations

import errno

import pytest

from builders import VERMAGIC, KoBuilder
from kobox.link.findings import Finding, LogLine, Refusal, Taint, TaintBit
from kobox.link.policy import (
    Export,
    Exports,
    Resolver,
    blacklisted,
    check_modinfo,
    check_modstruct_version,
    check_module_license_and_versions,
    find_symbol,
    has_unversioned_exports,
    is_named_in,
    license_is_gpl_compatible,
    read_versions,
    same_magic,
    verify_exported_symbols,
)
from kobox.link.resolve import MISSING
from kobox.link.rules import Rules, default_rules
from kobox.link.validity import LoadView, load_view

RULES = default_rules()
PROPRIETARY = 1 << TaintBit.PROPRIETARY


def exports(owner: str, *table: Export, taints: int = 0, unavailable: int = 0) -> Exports:
    return Exports(owner, {export.name: export for export in table}, taints, unavailable)


KERNEL = exports(
    "kernel",
    Export("module_layout", 0x100, crc=1),
    Export("plain", 0x200, crc=2),
    Export("for_gpl", 0x300, gpl=True, crc=3),
    Export("spaced", 0x400, namespace="SPACE", crc=4),
)


def view_of(module: KoBuilder) -> LoadView:
    return load_view(module.build(), RULES)


def versioned(**modinfo: str | list[str]) -> KoBuilder:
    module = KoBuilder("user").module(**modinfo)
    for number, name in enumerate(["module_layout", "plain", "for_gpl", "spaced", "theirs"], 1):
        module.version(name, number)
    return module


def resolver(
    module: KoBuilder | None = None, *others: Exports, of_module: int = 0, rules: Rules = RULES, taints: int = 0
) -> Resolver:
    return Resolver(view_of(module or versioned()), [KERNEL, *others], rules, taints, of_module)


def taint_mask(findings: tuple[Finding, ...], of_module: bool = False) -> int:
    """The bits set on the kernel, or on the module."""
    taints = [finding for finding in findings if isinstance(finding, Taint)]
    return sum({1 << taint.bit for taint in taints if taint.of_module or not of_module})


def texts(findings: tuple[Finding, ...]) -> list[tuple[int, str]]:
    return [(line.level, line.text) for line in findings if isinstance(line, LogLine)]


def test_the_kernel_comes_first_then_modules_newest_first() -> None:
    new, old = exports("new", Export("plain", 1), Export("both", 2)), exports("old", Export("both", 3))
    order = [KERNEL, new, old]
    assert find_symbol(order, "plain") == (KERNEL, KERNEL.table["plain"])
    assert find_symbol(order, "both") == (new, new.table["both"])
    assert find_symbol(order, "nowhere") is None


def test_an_exported_symbol_resolves_without_a_word() -> None:
    assert resolver()("plain") == (True, 0x200, "kernel", 0, ())


def test_a_proprietary_module_does_not_see_gpl_symbols() -> None:
    assert resolver(of_module=PROPRIETARY)("for_gpl") == MISSING
    assert resolver()("for_gpl").value == 0x300


def test_a_symbol_in_a_namespace_needs_its_import() -> None:
    answer = resolver()("spaced")
    assert answer.error == errno.EINVAL
    assert texts(answer.findings) == [
        (3, "user: module uses symbol (spaced) from namespace SPACE, but does not import it.")
    ]
    assert resolver(versioned(import_ns=["OTHER", "SPACE"]))("spaced").value == 0x400


@pytest.mark.parametrize(
    ("namespace", "is_open"),
    [("module:user", True), ("module:other,user", True), ("module:us*", True), ("module:*", True),
     ("module:use", False), ("module:users,xuser", False), ("module:", False), ("user", False),
     ("modules:user", False)],
)  # fmt: skip
def test_a_namespace_can_be_open_to_modules_by_their_names(namespace: str, is_open: bool) -> None:
    kernel = exports(
        "kernel", Export("module_layout", 0x100, crc=1), Export("plain", 0x200, namespace=namespace, crc=2)
    )
    answer = Resolver(view_of(versioned()), [kernel], RULES)("plain")
    assert answer.value == (0x200 if is_open else 0)


def test_dashes_in_such_names_are_underscores() -> None:
    assert is_named_in("module:kvm-intel", "kvm_intel")
    assert is_named_in("module:kvm_*", "kvm-amd")
    assert not is_named_in("module:kvm-intel", "kvm_amd")


def test_a_lenient_kernel_only_warns_about_a_namespace() -> None:
    answer = resolver(rules=RULES._replace(allow_missing_namespace=True))("spaced")
    assert (answer.value, answer.findings[0]) == (
        0x400,
        LogLine(4, "user: module uses symbol (spaced) from namespace SPACE, but does not import it."),
    )


def test_a_wrong_or_missing_version_is_refused() -> None:
    module = KoBuilder("user").module().version("plain", 99)
    wrong, missing = resolver(module)("plain"), resolver(module)("for_gpl")
    assert (wrong.error, texts(wrong.findings)) == (
        errno.EINVAL,
        [(4, "user: disagrees about version of symbol plain")],
    )
    assert (missing.error, texts(missing.findings)) == (errno.EINVAL, [(4, "user: no symbol version for for_gpl")])


def test_the_first_of_two_versions_counts() -> None:
    module = KoBuilder("user").module().version("plain", 2).version("plain", 99)
    assert resolver(module)("plain").error == 0
    assert read_versions(view_of(module)) == {"plain": 2}


def test_the_extended_form_of_versions_is_read_too() -> None:
    module = KoBuilder("user").module().section("__version_ext_crcs", (2).to_bytes(4, "little"))
    module.section("__version_ext_names", b"plain\0")
    assert read_versions(view_of(module)) == {"plain": 2}


def test_a_module_without_versions_is_forced_and_said_so_once() -> None:
    asked = resolver(KoBuilder("user").module())
    first, second = asked("plain"), asked("for_gpl")
    assert texts(first.findings) == [(4, "user: plain: kernel tainted.")]
    assert texts(second.findings) == []
    assert (asked.taints, asked.of_module) == (2, 2)
    assert (first.value, second.value) == (0x200, 0x300)


def test_a_kernel_that_does_not_force_refuses_a_module_without_versions() -> None:
    assert resolver(KoBuilder("user").module(), rules=RULES._replace(force_load=False))("plain").error == errno.EINVAL


def test_an_exporter_without_versions_is_not_compared() -> None:
    assert resolver(versioned(), exports("other", Export("theirs", 7)))("theirs").value == 7


def test_using_a_proprietary_module_taints_and_then_hides_gpl_symbols() -> None:
    other = exports("closed", Export("theirs", 7, crc=5), taints=PROPRIETARY)
    asked = resolver(versioned(), other)
    answer = asked("theirs")
    assert texts(answer.findings) == [
        (4, "user: module uses symbols theirs from proprietary module closed, inheriting taint.")
    ]
    assert asked.of_module == PROPRIETARY
    assert asked("for_gpl") == MISSING


def test_a_module_that_uses_gpl_symbols_may_not_use_a_proprietary_module() -> None:
    other = exports("closed", Export("theirs", 7, crc=5), taints=PROPRIETARY)
    asked = resolver(versioned(), other)
    asked("for_gpl")
    answer = asked("theirs")
    assert not answer.found
    assert texts(answer.findings) == [
        (3, "user: module using GPL-only symbols uses symbols theirs from proprietary module closed.")
    ]


@pytest.mark.parametrize("number", [errno.EBUSY, errno.ENOENT])
def test_a_module_that_cannot_be_used_now_answers_why(number: int) -> None:
    other = exports("busy", Export("theirs", 7, crc=5), unavailable=number)
    asked = resolver(versioned(), other)
    assert (asked("theirs").error, asked.used) == (number, [])


def test_exporting_modules_are_noted_once_in_order_of_use() -> None:
    first, second = exports("first", Export("a", 1), Export("b", 2)), exports("second", Export("c", 3))
    asked = resolver(versioned(), first, second)
    for name in ("c", "a", "b", "plain"):
        asked(name)
    assert [exporter.name for exporter in asked.used] == ["second", "first"]


def test_the_version_of_module_layout_stands_for_the_module_structure() -> None:
    assert check_modstruct_version(view_of(versioned()), [KERNEL], RULES, 0) == ()
    with pytest.raises(Refusal, match="disagrees about version of symbol module_layout") as caught:
        check_modstruct_version(view_of(KoBuilder("user").module().version("module_layout", 9)), [KERNEL], RULES, 0)
    assert caught.value.name == "ENOEXEC"
    forced = check_modstruct_version(view_of(KoBuilder("user").module()), [KERNEL], RULES, 0)
    assert texts(forced) == [(4, "user: module_layout: kernel tainted.")]
    assert taint_mask(forced) == 2


@pytest.mark.parametrize(
    ("module", "kernel", "has_crcs", "same"),
    [
        ("6.1 SMP", "6.1 SMP", False, True),
        ("6.1 SMP", "6.2 SMP", False, False),
        ("6.1 SMP", "6.2 SMP", True, True),
        ("6.1 SMP ", "6.1 SMP", True, False),
        ("", "", True, True),
        ("6.1", "6.2", True, True),
    ],
)
def test_the_first_word_of_vermagic_counts_only_without_versions(
    module: str, kernel: str, has_crcs: bool, same: bool
) -> None:
    assert same_magic(module, kernel, has_crcs) is same


def test_metadata_is_judged_in_the_kernels_order() -> None:
    module = KoBuilder("user").modinfo(name="user", vermagic=VERMAGIC, staging="Y", test="Y", license="Proprietary")
    found = check_modinfo(view_of(module.this_module()), VERMAGIC, RULES, 0)
    assert texts(found) == [
        (4, "user: loading out-of-tree module taints kernel."),
        (3, "Spectre V2 : System may be vulnerable to spectre v2"),
        (4, "user: loading module not compiled with retpoline compiler."),
        (4, "user: module is from the staging directory, the quality is unknown, you have been warned."),
        (4, "user: module license 'Proprietary' taints kernel."),
        (4, "user: loading test module taints kernel."),
    ]
    assert taint_mask(found) == 1 << 12 | 1 << 10 | 1 << 0 | 1 << 18
    assert Taint(TaintBit.PROPRIETARY, lockdep_off=True) in found


def test_what_was_said_once_is_not_said_again() -> None:
    module = KoBuilder("user").modinfo(name="user", vermagic=VERMAGIC, retpoline="Y", test="Y").this_module()
    everything = (1 << 64) - 1
    assert texts(check_modinfo(view_of(module), VERMAGIC, RULES, everything)) == []


def test_a_wrong_vermagic_is_refused_and_a_missing_one_forced() -> None:
    with pytest.raises(Refusal) as caught:
        check_modinfo(view_of(KoBuilder("user").module()), "other", RULES, 0)
    assert [line.text for line in caught.value.log] == [f"user: version magic '{VERMAGIC}' should be 'other'"]
    ignored = check_modinfo(view_of(KoBuilder("user").module()), "other", RULES, 0, ignore_vermagic=True)
    assert texts(ignored)[0] == (4, "user: bad vermagic: kernel tainted.")
    with pytest.raises(Refusal):
        check_modinfo(
            view_of(KoBuilder("user").module()), "other", RULES._replace(force_load=False), 0, ignore_vermagic=True
        )


def test_a_module_in_tree_is_not_called_out_of_tree() -> None:
    assert check_modinfo(view_of(KoBuilder("user").module(intree="Y")), VERMAGIC, RULES, 0) == ()


def test_a_livepatch_module_taints_or_is_refused() -> None:
    module = KoBuilder("user").module(livepatch="Y", intree="Y")
    found = check_modinfo(view_of(module), VERMAGIC, RULES, 0)
    assert found == (
        Taint(TaintBit.LIVEPATCH),
        LogLine(5, "user: tainting kernel with TAINT_LIVEPATCH", once=True),
    )
    with pytest.raises(Refusal, match="livepatch support is disabled"):
        check_modinfo(view_of(module), VERMAGIC, RULES._replace(livepatch=False), 0)


@pytest.mark.parametrize("license", ["GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL"])
def test_compatible_licences_are_spelled_exactly(license: str) -> None:
    assert license_is_gpl_compatible(license)
    assert not license_is_gpl_compatible(license + " ")
    assert not license_is_gpl_compatible(license.lower())


def test_a_missing_licence_is_called_unspecified() -> None:
    module = KoBuilder("user").modinfo(name="user", vermagic=VERMAGIC, retpoline="Y", intree="Y").this_module()
    assert texts(check_modinfo(view_of(module), VERMAGIC, RULES, 0)) == [
        (4, "user: module license 'unspecified' taints kernel.")
    ]


@pytest.mark.parametrize(("name", "of_module"), [("ndiswrapper", 0), ("driverloader", 1), ("lve", 1)])
def test_some_modules_are_not_believed(name: str, of_module: int) -> None:
    view = view_of(KoBuilder(name).module())
    found = check_module_license_and_versions(view, RULES, 0, has_unversioned_exports=False)
    assert texts(found) == [(4, f"{name}: module license taints kernel.")]
    assert (taint_mask(found), taint_mask(found, of_module=True)) == (1, of_module)


def test_exports_without_versions_force_the_module() -> None:
    bare, with_crc = KoBuilder("user").module().export("mine"), KoBuilder("user").module().export("mine", crc=1)
    assert has_unversioned_exports(view_of(bare), RULES)
    assert not has_unversioned_exports(view_of(with_crc), RULES)
    found = check_module_license_and_versions(view_of(bare), RULES, 0, has_unversioned_exports=True)
    assert texts(found) == [(4, "user: no versions for exported symbols: kernel tainted.")]


def test_exporting_what_someone_exports_already_is_refused() -> None:
    other = exports("other", Export("theirs", 7))
    view = view_of(versioned())
    verify_exported_symbols(view, ["new"], [KERNEL, other])
    for name, owner in (("theirs", "other"), ("for_gpl", "kernel")):
        with pytest.raises(Refusal) as caught:
            verify_exported_symbols(view, ["new", name], [KERNEL, other])
        assert [line.text for line in caught.value.log] == [f"user: exports duplicate symbol {name} (owned by {owner})"]


@pytest.mark.parametrize(
    ("name", "blacklist", "hit"),
    [("a", "a", True), ("a", "b,a", True), ("a", "ab,ba", False), ("a", "", False), ("a", "A", False)],
)
def test_the_boot_blacklist_is_a_list_of_names(name: str, blacklist: str, hit: bool) -> None:
    assert blacklisted(name, blacklist) is hit
