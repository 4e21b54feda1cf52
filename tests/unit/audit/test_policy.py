"""The audit as a whole: profiles, fixes with proof, baselines, allow-lists, SARIF."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from depot_roots import RELEASE, DepotRoot
from kobox.audit.allowlist import allow_list, allow_list_text
from kobox.audit.baseline import Baseline, compare, load_baseline, make_baseline, save_baseline
from kobox.audit.fixes import fix_lines, fix_text, proven, with_lines
from kobox.audit.policy import RULES, audit_system, immune_modules, report_json, verdict
from kobox.audit.profiles import built_in_profiles, load_profile, parse_profile
from kobox.audit.ways import System, expose
from kobox.cli import main
from kobox.depot.sarif import sarif
from kobox.depot.systems import open_system
from kobox.errors import BadFile, UsageError

PROFILE = b"""
title = "Mine"
[[module]]
name = "bad"
why = "no good"
severity = "error"
[[module]]
name = "soft"
[[module]]
name = "bi"
[[module]]
name = "none"
"""


@pytest.fixture
def root(tmp_path: Path) -> DepotRoot:
    made = DepotRoot(tmp_path).module("kernel/bad.ko").module("kernel/user.ko", needs=["kernel/bad.ko"])
    made.module("kernel/soft.ko").softdep("softdep soft pre: bad\n").builtin("kernel/bi.ko")
    return made.module("kernel/plain.ko").alias("net-pf-99", "bad").conf("etc/modprobe.d/x.conf", "blacklist bad\n")


def system(root: DepotRoot) -> System:
    opened = open_system(str(root.write().path), RELEASE)
    return System(opened.config, opened.tree, opened.root, opened.cmdline)


def test_each_unwanted_module_gets_its_verdict(root: DepotRoot) -> None:
    report = audit_system(system(root), [parse_profile(PROFILE, "p.toml", "mine")], loaded=["bad"])
    assert [(e.module, verdict(e)) for e in report.checked] == [
        ("bad", "reachable"),
        ("soft", "reachable"),
        ("bi", "built in"),
        ("none", "not there"),
    ]
    rules = [(finding.rule, finding.severity, finding.module) for finding in report.findings]
    assert ("reachable", "error", "bad") in rules
    assert ("loaded", "error", "bad") in rules
    assert ("built-in", "warning", "bi") in rules
    assert ("blacklist-only", "note", "bad") in rules


def test_a_finding_says_how_and_what_to_write(root: DepotRoot) -> None:
    report = audit_system(system(root), [parse_profile(PROFILE, "p.toml", "mine")])
    finding = next(finding for finding in report.findings if finding.module == "bad" and finding.rule == "reachable")
    assert finding.text == (
        "bad (mine) can be loaded by its name, as a dependency of user, as a soft dependency of soft; no good"
    )
    assert finding.fix == "in /etc/modprobe.d/00-kobox-audit.conf: blacklist bad; install bad /bin/false"


@pytest.mark.parametrize("module", ["bad", "soft", "user", "plain"])
def test_the_fix_is_proven_by_simulation_and_true_when_written(root: DepotRoot, module: str) -> None:
    before = system(root)
    assert proven(module, fix_lines(module, before), before)
    assert not proven(module, [f"blacklist {module}"], before)
    root.conf("etc/modprobe.d/00-kobox-audit.conf", fix_text([module], before))
    assert expose(module, system(root)).open_ways == ()


def test_lines_put_first_leave_the_original_configuration_alone(root: DepotRoot) -> None:
    before = system(root)
    changed = with_lines(before.config, ["blacklist other"])
    assert [fact.module for fact in changed.blacklists] == ["other", "bad"]
    assert [fact.module for fact in before.config.blacklists] == ["bad"]


def test_modules_that_an_install_line_cannot_stop_are_listed_with_what_stops_them(root: DepotRoot) -> None:
    (immune,) = immune_modules(system(root))
    assert immune.module == "soft"
    assert immune.stop == ("blacklist soft", "install soft /bin/false", "softdep soft pre:")
    assert immune.works
    assert str(immune.softdep).endswith("modules.softdep:1")


def test_the_report_as_json_can_be_written(root: DepotRoot) -> None:
    report = audit_system(system(root), [parse_profile(PROFILE, "p.toml", "mine")])
    shown = json.loads(json.dumps(report_json(report)))
    assert [(entry["module"], entry["stopped"]) for entry in shown["modules"]] == [
        ("bad", False),
        ("soft", False),
        ("bi", False),
        ("none", True),
    ]
    assert shown["install_cannot_stop"][0]["module"] == "soft"


def test_sarif_has_rules_results_and_relative_places(root: DepotRoot) -> None:
    audited = system(root)
    report = audit_system(audited, [parse_profile(PROFILE, "p.toml", "mine")])
    log = sarif(report.findings, RULES, "1.0", audited.root)
    run = log["runs"][0]  # type: ignore[index]
    names = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(run["results"]) == len(report.findings)
    for result in run["results"]:
        assert names[result["ruleIndex"]] == result["ruleId"]
    places = [result["locations"][0]["physicalLocation"] for result in run["results"] if "locations" in result]
    assert {"uri": "etc/modprobe.d/x.conf", "uriBaseId": "ROOT"} in [place["artifactLocation"] for place in places]


def test_every_rule_that_is_used_is_described(root: DepotRoot) -> None:
    report = audit_system(system(root), [parse_profile(PROFILE, "p.toml", "mine")], loaded=["bad"])
    assert {finding.rule for finding in report.findings} <= set(RULES)


# --- profiles --------------------------------------------------------------------------------------------------------


def test_every_profile_that_comes_along_can_be_read() -> None:
    assert built_in_profiles() == ["file-systems", "protocols", "removable"]
    modules = {name: [module.name for module in load_profile(name).modules] for name in built_in_profiles()}
    assert {"cramfs", "hfs", "hfsplus", "jffs2", "udf", "vfat"} <= set(modules["file-systems"])
    assert {"dccp", "sctp", "rds", "tipc"} <= set(modules["protocols"])
    assert {"usb_storage", "bluetooth", "firewire_core"} <= set(modules["removable"])


def test_a_profile_of_ones_own_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(PROFILE)
    profile = load_profile(str(tmp_path / "mine.toml"))
    assert (profile.name, profile.title, len(profile.modules)) == ("mine", "Mine", 4)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"x", "no TOML"),
        (b"title = 'x'", r"no \[\[module\]\]"),
        (b"[[module]]\nwhy = 'x'", "module 1: has no name"),
        (b"[[module]]\nname = 'x'\nsevere = 1", "unknown key 'severe'"),
        (b"[[module]]\nname = 'x'\nseverity = 'bad'", "severity: found bad"),
    ],
)
def test_a_wrong_profile_is_named_with_its_fault(data: bytes, said: str) -> None:
    with pytest.raises(BadFile, match=said):
        parse_profile(data, "p.toml", "p")


def test_an_unknown_profile_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="there are: file-systems"):
        load_profile("none")


# --- baseline --------------------------------------------------------------------------------------------------------

LOG = [
    "[    1.234567] foo: loading out-of-tree module taints kernel.",
    "[    2.000000] usb 1-1: new device",
    "Nov 20 10:00:00 host kernel: [    3.1] foo: module verification failed at 0xffffffffc0001000",
]


def test_a_second_boot_of_the_same_system_has_no_findings(tmp_path: Path) -> None:
    save_baseline(make_baseline(["foo", "bar"], LOG), tmp_path / "base.json")
    again = [line.replace("1.234567", "9.999").replace("0xffffffffc0001000", "0xffffffffc0aa0000") for line in LOG]
    assert compare(load_baseline(tmp_path / "base.json"), ["bar", "foo"], again) == []


def test_a_new_module_and_a_new_line_are_named() -> None:
    found = compare(Baseline(("foo",), ()), ["foo", "rootkit"], ["[ 1.0] rootkit: module license 'unspecified' taints"])
    assert [(finding.rule, finding.module) for finding in found] == [
        ("baseline-module", "rootkit"),
        ("baseline-log", ""),
    ]


@pytest.mark.parametrize("text", ["x", "[]", '{"modules": 1}', '{"log": [1]}'])
def test_what_is_no_baseline_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(BadFile):
        load_baseline(tmp_path / "b.json")


# --- allow-list ------------------------------------------------------------------------------------------------------


def test_an_allow_list_follows_hard_and_soft_dependencies(root: DepotRoot) -> None:
    listed = allow_list(["soft"], system(root))
    assert listed.allowed == ("bad", "soft")
    assert listed.stopped == ("plain", "user")


def test_the_file_of_an_allow_list_stops_the_others_and_not_the_wanted(root: DepotRoot) -> None:
    before = system(root)
    root.conf("etc/modprobe.d/00-allow.conf", allow_list_text(allow_list(["user"], before), before))
    after = system(root)
    assert [bool(expose(name, after).open_ways) for name in ("user", "bad", "soft", "plain")] == [
        True,
        True,
        False,
        False,
    ]


def test_unknown_names_in_an_allow_list_are_all_named(root: DepotRoot) -> None:
    with pytest.raises(UsageError, match="nope, neither"):
        allow_list(["nope", "bad", "neither"], system(root))


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_shows_a_report_and_fails_on_findings(root: DepotRoot, capsys: pytest.CaptureFixture[str]) -> None:
    (root.path / "mine.toml").write_bytes(PROFILE)
    root.write()
    assert main(["audit", str(root.path), "--profile", str(root.path / "mine.toml")]) == 1
    shown = capsys.readouterr().out
    assert "bad   reachable" in shown
    assert "does not stop these 1 modules" in shown


def test_after_its_own_fix_the_command_is_content(root: DepotRoot, capsys: pytest.CaptureFixture[str]) -> None:
    profile = PROFILE.replace(b'[[module]]\nname = "bi"\n', b"")
    (root.path / "mine.toml").write_bytes(profile)
    root.write()
    arguments = ["audit", str(root.path), "--profile", str(root.path / "mine.toml")]
    assert main([*arguments, "--print-fix"]) == 0
    root.conf("etc/modprobe.d/00-kobox-audit.conf", capsys.readouterr().out)
    root.conf("etc/modprobe.d/x.conf", "").write()
    assert main([*arguments, "--json"]) == 0
    assert all(entry["stopped"] for entry in json.loads(capsys.readouterr().out)["modules"])


def test_the_command_wants_to_know_which_system(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit"]) == 2
    assert "ROOT directory, or --live" in capsys.readouterr().err
