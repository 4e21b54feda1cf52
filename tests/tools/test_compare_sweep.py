"""``tools.compare_sweep``: what counts as a difference, and its class."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import compare_sweep


def module(**facts: object) -> dict[str, object]:
    return {"load_errno": 0, "unload_errno": 0, "log": [], "registered": {}} | facts


def kinds(ours: dict[str, object], theirs: dict[str, object]) -> list[tuple[str, str]]:
    return [(found.aspect, found.kind) for found in compare_sweep.compare({"m": ours}, {"m": theirs})]


def test_the_same_answers_are_no_difference() -> None:
    facts = module(log=[[6, "m: at 0x3f8"]], registered={"net": ["m0"]})
    assert kinds(facts, dict(facts)) == []


def test_numbers_that_depend_on_what_came_before_are_made_equal() -> None:
    ours = module(log=[[6, "m: at ffff8880"]], registered={"chrdev": ["241 m"], "misc": ["237 m"]})
    theirs = module(log=[[6, "m: at deadbeef"]], registered={"chrdev": ["235 m"], "misc": ["122 m"]})
    assert kinds(ours, theirs) == []
    fixed = kinds(module(registered={"chrdev": ["10 m"]}), module(registered={"chrdev": ["11 m"]}))
    assert fixed == [("registered", "chrdev")]


def test_a_list_that_the_record_cut_short_counts_as_far_as_it_goes() -> None:
    theirs = module(registered={"crypto": ["a", "...+2"]})
    assert kinds(module(registered={"crypto": ["a", "b", "c"]}), theirs) == []
    assert kinds(module(registered={"crypto": ["b", "c"]}), theirs) == [("registered", "crypto")]


@pytest.mark.parametrize(
    ("ours", "theirs", "kind"),
    [
        ({"load_errno": 2}, {"load_errno": 0}, "ENOENT instead of 0"),
        ({"load_errno": 0}, {"load_errno": None}, "0 instead of no answer"),
        ({"load_errno": None, "error": "x"}, {"load_errno": 0}, "error of kobox"),
        (
            {"load_errno": 2},
            {"load_errno": 0, "request_module": ["crypto-x"], "no_modprobe": {"load_errno": 2}},
            "modules that the kernel asked for were not there",
        ),
    ],
)
def test_a_load_that_ends_otherwise_gets_a_class(ours: dict[str, object], theirs: dict[str, object], kind: str) -> None:
    assert kinds(module(**ours), module(**theirs)) == [("load", kind)]


def test_what_the_recorded_machine_gave_up_is_a_class_of_its_own() -> None:
    theirs = module()
    del theirs["load_errno"]
    assert kinds(module(), theirs) == [("load", "the recorded machine gave up")]


def test_the_command_counts_and_exits_by_the_goal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = {f"m{number}": module() for number in range(200)}
    theirs = dict(ours) | {"m7": module(unload_errno=16), "elsewhere": module()}
    for name, modules in (("ours", ours), ("theirs", theirs)):
        (tmp_path / name).write_text(json.dumps({"modules": modules}))
    monkeypatch.setattr("sys.argv", ["compare_sweep", str(tmp_path / "ours"), str(tmp_path / "theirs"), "--json"])
    assert compare_sweep.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert found["agree"] == {"load": 200, "unload": 199, "registered": 200, "log": 200, "load and unload": 199}
    assert found["only_theirs"] == ["elsewhere"]
    for number in range(5):
        ours[f"m{number}"] = module(load_errno=19)
    (tmp_path / "ours").write_text(json.dumps({"modules": ours}))
    assert compare_sweep.main() == 1
