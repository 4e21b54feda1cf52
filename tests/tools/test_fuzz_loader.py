"""The loader's fuzzer without a kernel: mutants come again by their number, and outcomes are compared fairly."""

from __future__ import annotations

import random

import pytest
from tools.fuzz_loader import Seen, agree, mutate
from tools.golden_kernel import Answer

from builders import KoBuilder
from tools import fuzz_loader

MODULE = KoBuilder().param("num", "int", "a number", perm=0o644).build()
LOADED = (Seen("OK", [(6, "init")], 0, ["x 1"]), Answer(0))
REFUSED = (Seen("ENOEXEC", [], 0, []), Answer(-8))
CRASHED = (Seen(None, [], None, None), Answer(None, killed_by=9))


def test_a_number_makes_the_same_mutant_again() -> None:
    first = [mutate(MODULE, random.Random(number)) for number in range(200)]
    assert first == [mutate(MODULE, random.Random(number)) for number in range(200)]
    assert len({mutant.what.partition(":")[0] for mutant in first}) >= 6
    assert sum(mutant.data != MODULE for mutant in first) > 150


@pytest.mark.parametrize(
    ("own", "image", "same"),
    [
        (LOADED, LOADED, True),
        (REFUSED, LOADED, False),
        (LOADED, REFUSED, False),
        (CRASHED, LOADED, False),
        (REFUSED, CRASHED, True),
        (CRASHED, CRASHED, True),
        (LOADED, CRASHED, False),
        ((LOADED[0]._replace(tainted=1), LOADED[1]), LOADED, False),
        ((LOADED[0]._replace(log=[]), LOADED[1]), LOADED, False),
    ],
)
def test_outcomes_must_be_the_same_but_a_crash_may_be_a_refusal(
    own: tuple[Seen, Answer], image: tuple[Seen, Answer], same: bool
) -> None:
    assert agree(own, image) is same


def test_every_kind_of_change_survives_a_module_that_lacks_its_part() -> None:
    bare = bytearray(KoBuilder().build())
    for kind in (fuzz_loader.symbol, fuzz_loader.relocation, fuzz_loader.modinfo, fuzz_loader.version):
        assert kind(bytearray(bare), random.Random(1))
