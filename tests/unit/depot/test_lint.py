"""The linter: each rule on a system made for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from depot_roots import RELEASE, DepotRoot
from kobox.depot.findings import Finding, finding_line
from kobox.depot.lint import RULES, lint
from kobox.depot.systems import open_system


@pytest.fixture
def root(tmp_path: Path) -> DepotRoot:
    return DepotRoot(tmp_path).module("kernel/foo.ko").module("kernel/bar.ko").builtin("kernel/bi.ko")


def findings(root: DepotRoot, cmdline: str | None = None) -> list[Finding]:
    return lint(open_system(str(root.write().path), RELEASE, cmdline).resolver())


@pytest.mark.parametrize(
    ("text", "rule", "line"),
    [
        ("# x\nnonsense\n", "bad-line", 2),
        ("blacklist nope\n", "no-such-module", 1),
        ("options nope a=1\n", "no-such-module", 1),
        ("install foo a\ninstall foo b\n", "command-overridden", 2),
        ("install f* a\ninstall foo b\n", "command-overridden", 2),
        ("install foo /bin/false\nsoftdep foo pre: bar\n", "command-ignored", 1),
        ("softdep foo pre: bar\nsoftdep foo pre: bi\n", "softdep-overridden", 2),
        ("softdep foo bar\n", "softdep-empty", 1),
        ("alias x off\n", "alias-to-nothing", 1),
        ("blacklist foo\n\nblacklist foo\n", "duplicate-line", 3),
        ("options foo a=1\r\n", "carriage-return", 1),
    ],
)
def test_a_rule_finds_its_line(root: DepotRoot, text: str, rule: str, line: int) -> None:
    found = findings(root.conf("etc/modprobe.d/x.conf", text))
    assert [(finding.rule, finding.place and finding.place.line) for finding in found] == [(rule, line)]
    assert rule in RULES


def test_a_clean_configuration_has_no_findings(root: DepotRoot) -> None:
    text = "# all well\nalias x foo\nblacklist foo\noptions bar a=1\ninstall foo /bin/false\nsoftdep bar pre: bi\n"
    assert findings(root.conf("etc/modprobe.d/x.conf", text)) == []


def test_a_hidden_file_is_named_with_the_one_that_hides_it(root: DepotRoot) -> None:
    root.conf("etc/modprobe.d/x.conf", "blacklist foo\n").conf("lib/modprobe.d/x.conf", "blacklist bar\n")
    (finding,) = findings(root)
    assert finding.rule == "hidden-file"
    assert f"{root.path}/etc/modprobe.d/x.conf" in finding.text


def test_a_hidden_file_that_says_the_same_is_no_finding(root: DepotRoot) -> None:
    assert findings(root.conf("etc/modprobe.d/x.conf", "").conf("lib/modprobe.d/x.conf", "")) == []


def test_a_file_without_conf_at_its_end_is_not_read(root: DepotRoot) -> None:
    root.conf("etc/modprobe.d/x.conf", "").conf("etc/modprobe.d/block", "blacklist foo\n").conf(
        "etc/modprobe.d/README", ""
    )
    assert [(finding.rule, str(finding.place)) for finding in findings(root)] == [
        ("unread-file", f"{root.path}/etc/modprobe.d/block")
    ]


def test_a_dash_in_the_command_lines_blacklist_never_matches(root: DepotRoot) -> None:
    (finding,) = [found for found in findings(root, "modprobe.blacklist=a-b") if found.rule == "dash-in-blacklist"]
    assert finding.fix == "write modprobe.blacklist=a_b"


def test_what_modules_say_of_themselves_is_one_note(root: DepotRoot) -> None:
    (finding,) = findings(root.softdep("softdep foo pre: bar\nsoftdep foo pre: bi\nsoftdep foo post: bi\n"))
    assert (finding.severity, finding.text) == ("note", "only the first of foo's own 3 softdep lines counts")


def test_a_finding_reads_like_a_compilers() -> None:
    from kobox.depot.facts import Place

    finding = Finding("bad-line", "error", "wrong", Place("/etc/x.conf", 3), "remove it")
    assert finding_line(finding) == "/etc/x.conf:3: error: wrong [bad-line]\n    fix: remove it"
