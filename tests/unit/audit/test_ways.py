"""Every way into the kernel is simulated, and what stops it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from depot_roots import RELEASE, DepotRoot
from kobox.audit.ways import BLOCKED, LOADS, System, a_name_for, expose
from kobox.depot.commands import UNKNOWN, command_effect
from kobox.depot.systems import open_system


@pytest.fixture
def root(tmp_path: Path) -> DepotRoot:
    """bad is a protocol; user needs it, soft has it as a soft dependency, both modules of their own."""
    made = DepotRoot(tmp_path).module("kernel/bad.ko").module("kernel/user.ko", needs=["kernel/bad.ko"])
    made.module("kernel/soft.ko").softdep("softdep soft pre: bad\n").builtin("kernel/bi.ko")
    return made.alias("net-pf-99", "bad").alias("pci:v1d*", "bad").alias("pci:v2d*", "bad")


def system(root: DepotRoot, text: str = "", cmdline: str | None = None) -> System:
    opened = open_system(str(root.conf("etc/modprobe.d/x.conf", text).write().path), RELEASE, cmdline)
    return System(opened.config, opened.tree, opened.root, opened.cmdline)


def outcomes(root: DepotRoot, text: str = "", cmdline: str | None = None) -> dict[tuple[str, str], str]:
    return {(way.kind, way.through): way.outcome for way in expose("bad", system(root, text, cmdline)).ways}


ALL = {("name", "bad"), ("kernel request", "net_pf_99"), ("device", "pci:v1d"), ("dependency", "user")}


def test_every_way_is_open_by_default(root: DepotRoot) -> None:
    found = outcomes(root)
    assert set(found.values()) == {LOADS}
    assert set(found) == {*ALL, ("soft dependency", "soft"), ("insmod", f"{root.tree}/kernel/bad.ko")}


def test_a_blacklist_stops_aliases_only(root: DepotRoot) -> None:
    found = outcomes(root, "blacklist bad\n")
    assert [way for way, outcome in found.items() if outcome == BLOCKED] == [
        ("kernel request", "net_pf_99"),
        ("device", "pci:v1d"),
    ]


def test_an_install_line_stops_every_way_but_insmod_and_takes_dependents_along(root: DepotRoot) -> None:
    exposure = expose("bad", system(root, "install bad /bin/false\n"))
    assert exposure.open_ways == ()
    assert exposure.breaks == ("user",)
    assert [way.outcome for way in exposure.ways if way.kind == "insmod"] == [LOADS]


def test_an_install_line_does_not_stop_a_module_with_a_soft_dependency(root: DepotRoot) -> None:
    exposure = expose("soft", system(root, "install soft /bin/false\n"))
    (way,) = [way for way in exposure.open_ways if way.kind == "name"]
    assert "a soft dependency takes precedence" in way.reason.text
    assert str(way.reason.place).endswith("modules.softdep:1")


def test_an_empty_softdep_line_that_comes_first_makes_the_install_line_work(root: DepotRoot) -> None:
    exposure = expose("soft", system(root, "install soft /bin/false\n"))
    assert exposure.open_ways
    root.conf("etc/modprobe.d/00-first.conf", "softdep soft pre:\n")
    assert expose("soft", system(root, "install soft /bin/false\n")).open_ways == ()


def test_an_install_command_that_is_not_known_is_not_known(root: DepotRoot) -> None:
    assert outcomes(root, "install bad /usr/local/bin/ask\n")["name", "bad"] == UNKNOWN


def test_another_modules_install_command_that_names_it_is_reported(root: DepotRoot) -> None:
    found = outcomes(root, "install bad /bin/false\ninstall other modprobe -i bad\n")
    assert found["install command", "other"] == UNKNOWN


def test_a_list_at_boot_is_a_way_and_blacklists_count_for_it(root: DepotRoot) -> None:
    root.conf("etc/modules-load.d/x.conf", "bad\n")
    assert outcomes(root)["boot list", "bad"] == LOADS
    assert outcomes(root, "blacklist bad\n")["boot list", "bad"] == BLOCKED


def test_the_kernels_own_blacklist_stops_everything(root: DepotRoot) -> None:
    assert outcomes(root, cmdline="module_blacklist=bad") == {("kernel", "bad"): BLOCKED}


def test_a_built_in_module_cannot_be_kept_out(root: DepotRoot) -> None:
    exposure = expose("bi", system(root, "install bi /bin/false\nblacklist bi\n"))
    assert exposure.state == "builtin"
    assert exposure.open_ways[0].kind == "built-in"


def test_a_module_that_is_not_there_has_no_ways(root: DepotRoot) -> None:
    assert expose("none", system(root)).state == "absent"


@pytest.mark.parametrize(
    ("command", "effect"),
    [
        ("/bin/false", "fails"),
        ("false", "fails"),
        ("/usr/bin/true $CMDLINE_OPTS", "unknown"),
        ("/bin/true", "succeeds"),
        ("exit 0", "succeeds"),
        ("exit 1", "fails"),
        ("/bin/false || modprobe x", "unknown"),
        ("echo 'unclosed", "unknown"),
        ("", "succeeds"),
        ("/sbin/modprobe -i x", "unknown"),
    ],
)
def test_only_commands_known_to_load_nothing_count_as_a_block(command: str, effect: str) -> None:
    assert command_effect(command) == effect


def test_a_name_is_made_for_an_alias_pattern() -> None:
    assert a_name_for("usb:v0[5-9]??p*") == "usb:v0500p"
