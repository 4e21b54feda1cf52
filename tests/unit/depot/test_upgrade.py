"""An upgrade rehearsed: two releases of one root, and what of the difference matters to this system."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builders import KoBuilder
from depot_roots import DepotRoot
from kobox.cli import main
from kobox.depot.findings import Finding
from kobox.depot.upgrade import RULES, Upgrade, rehearse_upgrade, upgrade_json
from kobox.errors import UsageError

OLD, NEW = "6.1.0", "6.12.0"


def module(release: str, *parameters: str, signed: bool = False) -> bytes:
    made = KoBuilder("m").module(vermagic=f"{release} SMP ", parm=[f"{name}:what it does" for name in parameters])
    return (made.signature() if signed else made).build()


@pytest.fixture
def old(tmp_path: Path) -> DepotRoot:
    return DepotRoot(tmp_path, OLD).module("kernel/stays.ko", content=module(OLD, "a", "b"))


@pytest.fixture
def new(tmp_path: Path) -> DepotRoot:
    return DepotRoot(tmp_path, NEW).module("kernel/stays.ko", content=module(NEW, "a"))


def rehearsed(old: DepotRoot, new: DepotRoot, text: str = "") -> Upgrade:
    old.conf("etc/modprobe.d/x.conf", text).write()
    new.write()
    return rehearse_upgrade(str(old.path), OLD, NEW)


def only(upgrade: Upgrade) -> Finding:
    (finding,) = upgrade.findings
    assert finding.rule in RULES
    return finding


def test_nothing_changed_is_no_finding(old: DepotRoot, new: DepotRoot) -> None:
    upgrade = rehearsed(old.module("kernel/unused.ko"), new.module("kernel/fresh.ko"))
    assert upgrade.findings == ()
    assert (upgrade.gone, upgrade.added) == (("unused",), ("fresh",))


def test_a_module_with_options_that_is_gone_is_an_error_at_its_line(old: DepotRoot, new: DepotRoot) -> None:
    finding = only(rehearsed(old.module("kernel/lost.ko"), new, "options lost x=1\n"))
    assert (finding.rule, finding.module) == ("module-gone", "lost")
    assert str(finding.place).endswith("x.conf:1")


def test_a_module_that_boot_lists_load_is_used_too(old: DepotRoot, new: DepotRoot) -> None:
    old.module("kernel/lost.ko").conf("etc/modules-load.d/a.conf", "lost\n")
    assert only(rehearsed(old, new)).rule == "module-gone"


def test_a_loaded_module_is_used_too(old: DepotRoot, new: DepotRoot) -> None:
    assert only(rehearsed(old.module("kernel/lost.ko").loaded("lost"), new)).rule == "module-gone"


def test_options_of_a_module_that_is_built_in_now_move_to_the_command_line(old: DepotRoot, new: DepotRoot) -> None:
    old.module("kernel/deep.ko")
    finding = only(rehearsed(old, new.builtin("kernel/deep.ko"), "options deep x=1 y\n"))
    assert (finding.rule, finding.fix) == ("now-built-in", "on the kernel command line: deep.x=1 deep.y")


def test_what_was_built_in_and_is_a_module_is_named(old: DepotRoot, new: DepotRoot) -> None:
    old.builtin("kernel/deep.ko").conf("etc/modules-load.d/a.conf", "deep\n")
    assert only(rehearsed(old, new.module("kernel/deep.ko"))).rule == "no-longer-built-in"


def test_a_module_from_outside_that_is_not_built_yet_is_an_error(old: DepotRoot, new: DepotRoot) -> None:
    finding = only(rehearsed(old.module("updates/dkms/vendor.ko"), new))
    assert (finding.rule, finding.fix) == ("external-missing", f"build it for {NEW}")


def test_an_option_whose_parameter_is_gone_is_named(old: DepotRoot, new: DepotRoot) -> None:
    finding = only(rehearsed(old, new, "options stays a=1 b=2\n"))
    assert (finding.rule, finding.text) == ("parameter-gone", f"stays of {NEW} has no parameter b")


def test_a_soft_dependency_that_leads_nowhere_is_named(old: DepotRoot, new: DepotRoot) -> None:
    finding = only(rehearsed(old.module("kernel/lost.ko"), new, "softdep stays pre: lost\n"))
    assert finding.rule == "softdep-gone"


def test_a_lost_signature_is_an_error(old: DepotRoot, new: DepotRoot) -> None:
    old.module("updates/x.ko", content=module(OLD, signed=True))
    new.module("updates/x.ko", content=module(NEW))
    assert only(rehearsed(old, new)).rule == "signature-gone"


def test_a_module_built_for_another_release_is_an_error(old: DepotRoot, new: DepotRoot) -> None:
    old.module("updates/x.ko", content=module(OLD))
    new.module("updates/x.ko", content=module(OLD))
    finding = only(rehearsed(old, new))
    assert (finding.rule, finding.text) == ("wrong-vermagic", f"x was built for {OLD}")


def test_a_release_that_is_not_there_is_a_usage_error(old: DepotRoot) -> None:
    old.write()
    with pytest.raises(UsageError, match=r"no modules\.dep"):
        rehearse_upgrade(str(old.path), OLD, "9.9")


def test_the_record_can_be_written_as_json(old: DepotRoot, new: DepotRoot) -> None:
    shown = json.loads(json.dumps(upgrade_json(rehearsed(old.module("kernel/unused.ko"), new))))
    assert shown["gone"] == ["unused"]


def test_the_command_shows_findings_and_fails_on_them(
    old: DepotRoot, new: DepotRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    rehearsed(old.module("updates/vendor.ko"), new)
    assert main(["explain", "--upgrade", OLD, NEW, "--root", str(old.path)]) == 1
    assert "external-missing" in capsys.readouterr().out
    assert main(["explain", "--upgrade", OLD, OLD, "--root", str(old.path)]) == 0
