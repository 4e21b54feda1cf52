"""KTAP in a kernel's log: what is a result, what belongs to it, what never came."""

from __future__ import annotations

from kobox.kunit.ktap import read_ktap, renumbered

LOG = """\
shapes: loading out-of-tree module taints kernel.
ok 1 this is no test, for nothing has begun
KTAP version 1
1..2
    KTAP version 1
    # Subtest: shapes
    1..3
    # area: EXPECTATION FAILED at shapes.c:9
    Expected 2 == 3, but
    not ok 1 area
        KTAP version 1
        # Subtest: sides
        ok 1 triangle
        ok 2 square # SKIP no paper
    ok 2 sides
    ok 3 colour # SKIP too dark
# shapes: pass:1 fail:1 skip:1 total:3
not ok 1 shapes
    KTAP version 1
    # Subtest: sounds
    1..1
    ok 1 loud
ok 2 sounds
shapes: gone
""".splitlines()


def test_results_have_what_is_below_them_and_the_lines_before_them() -> None:
    shapes, sounds = read_ktap(LOG).suites
    assert [(test.name, test.status) for test in shapes.tests] == [
        ("area", "fail"),
        ("sides", "pass"),
        ("colour", "skip"),
    ]
    assert shapes.tests[0].notes == ("    # area: EXPECTATION FAILED at shapes.c:9", "    Expected 2 == 3, but")
    assert [(test.name, test.status, test.why) for test in shapes.tests[1].tests] == [
        ("triangle", "pass", ""),
        ("square", "skip", "no paper"),
    ]
    assert [test.name for test in shapes.leaves()] == ["area", "triangle", "square", "colour"]
    assert sounds.status == "pass"


def test_a_suite_with_fewer_results_than_it_announced_has_failed() -> None:
    cut = [line for line in LOG if "loud" not in line]
    sounds = read_ktap(cut).suites[1]
    assert (sounds.ok, sounds.missing, sounds.status) == (True, 1, "fail")


def test_suites_that_never_ended_are_missing() -> None:
    cut = LOG[: LOG.index("    # Subtest: sounds")]
    assert read_ktap(cut).missing == 1
    assert read_ktap([]).missing == 0


def test_a_document_of_several_counts_on_and_has_one_head() -> None:
    lines = [*renumbered(LOG, 1), *renumbered(LOG, 3)]
    suites = [line for line in lines if line.startswith(("ok", "not ok"))]
    assert suites == ["not ok 1 shapes", "ok 2 sounds", "not ok 3 shapes", "ok 4 sounds"]
    assert not any(line.startswith(("KTAP", "1..", "shapes:")) for line in lines)
    assert [suite.name for suite in read_ktap(["KTAP version 1", "1..4", *lines]).suites] == ["shapes", "sounds"] * 2
