"""What a sweep's records say: verdicts, JSON with the recorded machine's names, the ranking of what is missing."""

from __future__ import annotations

import json

import pytest

from kobox.sweep.records import ModuleResult, SweepReport, ranked


def result(name: str, **facts: object) -> ModuleResult:
    made = ModuleResult(name, f"kernel/{name}.ko")
    for key, value in facts.items():
        setattr(made, key, value)
    return made


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        ({"load": 0, "unload": 0}, "loaded"),
        ({"load": 19}, "refused"),
        ({"load": 0, "oops": "BUG: x"}, "crashed"),
        ({"hang": True}, "hung"),
        ({"load": 0, "oops": "BUG: x", "error": "gone"}, "error"),
    ],
)
def test_a_verdict_is_the_worst_that_happened(facts: dict[str, object], verdict: str) -> None:
    assert result("m", **facts).verdict == verdict


def test_the_json_has_positive_errno_numbers_and_leaves_out_what_says_nothing() -> None:
    data = result("m", load=19, log=((6, "m: no device"),), needs=("kernel/n.ko", "kernel/o.ko")).as_data()
    assert data["load_errno"] == 19
    assert data["log"] == [[6, "m: no device"]]
    assert (data["deps"], data["deps_loaded"], data["log_n"]) == (2, 2, 1)
    assert not data.keys() & {"unload_errno", "registered", "pinned", "missing", "error", "size"}
    loaded = result("m", load=0, unload=0, users=0, registered={"net": ("m0",)}).as_data()
    assert (loaded["load_errno"], loaded["unload_errno"], loaded["refcnt"]) == (0, 0, "0")
    assert loaded["registered"] == {"net": ["m0"]}


def test_a_report_counts_by_errno_name_and_is_ok_when_modules_only_refuse() -> None:
    modules = (result("a", load=0, unload=0), result("b", load=19), result("c", load=0, unload=16, permanent=True))
    report = SweepReport("6.1", "qemu64", "/tree", 2, 1.0, modules)
    facts = report.summary()
    assert facts["load_errno"] == {"0": 2, "ENODEV": 1}
    assert facts["unload_errno"] == {"0": 1, "none": 1, "EBUSY": 1}
    assert facts["permanent"] == ["c"]
    assert report.ok
    assert json.loads(json.dumps(report.as_data()))["modules"]["b"]["load_errno"] == 19
    assert not report._replace(modules=(*modules, result("d", hang=True))).ok


def test_missing_symbols_are_ranked_by_the_modules_that_lack_them() -> None:
    modules = [result("a", missing=("x", "y")), result("b", missing=("y",)), result("c", missing=("z",))]
    assert [tuple(row) for row in ranked(modules)] == [("y", 2, 1), ("z", 1, 1), ("x", 1, 0)]
