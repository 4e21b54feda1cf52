"""Processes that sweep: none of them can lose a result or stop the others."""

from __future__ import annotations

import pytest

from kobox.sweep import pool
from kobox.sweep.records import Item, ModuleResult
from sweep_benches import FakeSetup


def items(*names: str) -> list[Item]:
    return [Item(name, f"{number}/{name}.ko", ()) for number, name in enumerate(names)]


def sweep(*pieces: list[Item], jobs: int = 2) -> dict[str, ModuleResult]:
    found = list(pool.sweep_in_processes(FakeSetup(), pieces, jobs))  # type: ignore[arg-type]
    assert len(found) == sum(map(len, pieces))
    return {result.path: result for result in found}


def test_every_module_of_every_piece_is_swept_once() -> None:
    pieces = [items(f"a{number}", f"b{number}", f"c{number}") for number in range(7)]
    found = sweep(*pieces)
    assert {result.name for result in found.values()} == {item.name for piece in pieces for item in piece}


def test_a_process_that_dies_takes_only_its_present_module_with_it() -> None:
    found = sweep(items("a", "die", "b", "c"), items("d", "e"))
    by_name = {result.name: result for result in found.values()}
    assert by_name["die"].error == "the process that swept it ended: SIGKILL"
    assert by_name["die"].load is None
    assert all(by_name[name].load == 0 for name in "abcde")


def test_a_module_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "PATIENCE", 2.0)
    found = sweep(items("sleep", "after"), jobs=1)
    by_name = {result.name: result for result in found.values()}
    assert "given up" in by_name["sleep"].error
    assert by_name["after"].load == 0


def test_after_an_error_of_kobox_the_next_module_gets_a_new_kernel() -> None:
    found = sweep(items("a", "wrong", "b", "c"), jobs=1)
    assert [result.users for result in found.values()] == [1, 2, 1, 2]
