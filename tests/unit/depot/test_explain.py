"""Why a load would do what it does, as a record, as text and as a command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from depot_roots import RELEASE, DepotRoot
from kobox.cli import main
from kobox.depot.explain import Explanation, explain, explanation_json, explanation_lines
from kobox.depot.systems import open_system

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def root(tmp_path: Path) -> DepotRoot:
    made = DepotRoot(tmp_path).module("kernel/foo.ko", needs=["kernel/bar.ko"]).module("kernel/bar.ko")
    return (
        made.module("kernel/user.ko", needs=["kernel/foo.ko", "kernel/bar.ko"])
        .alias("fs-foo", "foo")
        .builtin("k/bi.ko")
    )


def explained(root: DepotRoot, request: str, text: str = "") -> Explanation:
    root.conf("etc/modprobe.d/x.conf", text).write()
    return explain(request, open_system(str(root.path), RELEASE))


def test_every_step_and_reason_is_shown_with_its_line(root: DepotRoot) -> None:
    lines = explanation_lines(explained(root, "fs-foo", "options foo a=1\ninstall bar /bin/true\n"))
    tree, conf = root.tree, root.path / "etc/modprobe.d/x.conf"
    assert lines == [
        f"fs-foo is foo: alias fs_foo ({tree}/modules.alias)",
        "  in this order:",
        "    1. run '/bin/true' instead of inserting bar",
        f"         dependency of foo ({tree}/modules.dep)",
        f"         install bar replaces the insertion ({conf}:2)",
        "    2. insert foo with a=1",
        f"         options foo a=1 ({conf}:1)",
        "needed by: user",
        "aliases: fs_foo",
    ]


def test_a_blacklist_that_stops_is_named(root: DepotRoot) -> None:
    lines = explanation_lines(explained(root, "fs-foo", "blacklist foo\n"))
    where = f"{root.path}/etc/modprobe.d/x.conf:1"
    assert lines[1] == f"  nothing would happen: blacklist foo, reached through fs_foo ({where})"


def test_what_is_loaded_already_is_passed_over(root: DepotRoot) -> None:
    answer = explained(root.loaded("bar", 1, ("foo",)), "foo")
    assert "    1. insert bar (loaded already, passed over)" in explanation_lines(answer)
    assert [module.name for module in answer.loaded] == ["bar"]


def test_a_line_without_effect_is_a_notice(root: DepotRoot) -> None:
    answer = explained(root, "foo", "install foo /bin/false\nsoftdep foo pre: bi\n")
    assert [finding.rule for finding in answer.notices] == ["command-ignored"]


def test_a_boot_list_is_named(root: DepotRoot) -> None:
    answer = explained(root.conf("etc/modules-load.d/a.conf", "\nfoo\n"), "foo")
    assert f"loaded at boot: foo ({root.path}/etc/modules-load.d/a.conf:2)" in explanation_lines(answer)


def test_a_built_in_module_is_explained(root: DepotRoot) -> None:
    assert "part of the kernel" in explanation_lines(explained(root, "bi"))[1]


def test_an_alias_to_nothing_is_explained(root: DepotRoot) -> None:
    assert "    1. fail: there is no file for off" in explanation_lines(explained(root, "x", "alias x off\n"))


def test_an_unknown_name_gets_names_that_are_alike(root: DepotRoot) -> None:
    answer = explained(root, "fooo")
    assert answer.nearest == ("foo",)
    assert explanation_lines(answer) == [
        f"fooo: no module, alias or command of {RELEASE} has this name; did you mean foo?"
    ]


def test_the_record_can_be_written_as_json(root: DepotRoot) -> None:
    shown = json.loads(json.dumps(explanation_json(explained(root, "foo"))))
    assert shown["needed_by"] == ["user"]
    assert [step["module"] for step in shown["modules"][0]["steps"]] == ["bar", "foo"]


def test_the_command_answers_and_fails_for_an_unknown_name(root: DepotRoot, capsys: Captured) -> None:
    root.write()
    assert main(["explain", "foo", "--root", str(root.path)]) == 0
    assert main(["explain", "nope", "--root", str(root.path)]) == 1
    assert "nope: no module" in capsys.readouterr().out


def test_the_command_wants_a_question_and_a_system(root: DepotRoot, capsys: Captured) -> None:
    assert main(["explain", "--root", str(root.path)]) == 2
    assert main(["explain", "foo"]) == 2
    assert capsys.readouterr().err.count("\n") == 2
