"""What depmod remembers: nothing is read or written twice, and nothing stale survives."""

from __future__ import annotations

import lzma
import os
from pathlib import Path

import pytest

from builders import KoBuilder
from kobox.depot import depmod_cache
from kobox.depot.depmod import DepmodOptions, DepmodResult, depmod
from kobox.depot.depmod_cache import NOTHING, Memory
from kobox.depot.depmod_write import FILES
from kobox.image.cache import Cache

RELEASE = "6.1.0-test"


def module(*aliases: str, export: str | None = None, need: str | None = None, code: bytes = b"\xc3") -> bytes:
    builder = KoBuilder().text(code)
    if export:
        builder.export(export)
    if need:
        builder.undefined(need)
    return builder.modinfo(*[("alias", alias) for alias in aliases], license="GPL").build()


class Runs:
    """A tree, a cache, and one depmod run after the other."""

    def __init__(self, path: Path) -> None:
        self.tree = path / "lib/modules" / RELEASE
        self.cache = path / "cache"
        self.tree.mkdir(parents=True)
        (self.tree / "a.ko").write_bytes(module("fs-a", export="a_one"))
        (self.tree / "b.ko").write_bytes(module("fs-b", need="a_one"))
        (self.tree / "c.ko.xz").write_bytes(lzma.compress(module("fs-c")))
        (self.tree / "modules.order").write_text("a.ko\nb.ko\nc.ko\n")
        self.said: list[str] = []

    def run(self) -> DepmodResult:
        self.said.clear()
        options = DepmodOptions(str(self.tree), RELEASE, config=(), processes=1, cache=str(self.cache))
        return depmod(options, lambda level, text: self.said.append(text))

    def expect_as_fresh(self) -> None:
        """The files are those of a run that remembers nothing."""
        fresh = self.tree.parent / "fresh"
        depmod(DepmodOptions(str(self.tree), RELEASE, str(fresh), config=(), processes=1))
        for name in FILES:
            assert (self.tree / name).read_bytes() == (fresh / name).read_bytes(), name


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    runs = Runs(tmp_path)
    assert runs.run().read == 3
    return runs


def test_a_second_run_reads_and_writes_nothing(runs: Runs) -> None:
    before = {name: os.stat(runs.tree / name).st_mtime_ns for name in FILES}
    result = runs.run()
    assert (result.read, result.written) == (0, ())
    assert {name: os.stat(runs.tree / name).st_mtime_ns for name in FILES} == before


def test_a_module_with_new_code_is_read_and_nothing_is_written(runs: Runs) -> None:
    (runs.tree / "a.ko").write_bytes(module("fs-a", export="a_one", code=b"\x90\xc3"))
    result = runs.run()
    assert (result.read, result.written) == (1, ())
    assert os.stat(runs.tree / "modules.dep").st_mtime_ns >= os.stat(runs.tree / "a.ko").st_mtime_ns
    assert runs.run().read == 0


@pytest.mark.parametrize(
    ("data", "written"),
    [
        (module("fs-new", export="a_one"), {"modules.alias", "modules.alias.bin", "modules.softdep"}),
        (module("fs-a"), {"modules.dep", "modules.dep.bin", "modules.symbols", "modules.symbols.bin"}),
        (module("fs-a", export="a_one", need="nothing"), {"modules.dep"}),
    ],
)
def test_only_files_that_depend_on_a_change_are_written(runs: Runs, data: bytes, written: set[str]) -> None:
    (runs.tree / "a.ko").write_bytes(data)
    result = runs.run()
    assert result.read == 1
    assert written <= set(result.written) < set(FILES)
    runs.expect_as_fresh()


def test_new_and_removed_modules_change_everything(runs: Runs) -> None:
    (runs.tree / "b.ko").unlink()
    (runs.tree / "d.ko").write_bytes(module("fs-d", need="a_one"))
    result = runs.run()
    assert (result.read, result.written) == (1, FILES)
    runs.expect_as_fresh()


def test_another_order_of_modules_changes_everything(runs: Runs) -> None:
    (runs.tree / "modules.order").write_text("c.ko\nb.ko\na.ko\n")
    assert set(runs.run().written) >= {"modules.dep", "modules.alias", "modules.symbols"}
    runs.expect_as_fresh()


def test_a_compressed_module_with_the_same_bytes_is_not_unpacked_again(runs: Runs) -> None:
    path = runs.tree / "c.ko.xz"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    assert runs.run().written == ()
    runs.expect_as_fresh()


def test_a_file_that_somebody_changed_is_written_again(runs: Runs) -> None:
    (runs.tree / "modules.alias").write_text("mine")
    (runs.tree / "modules.devname").unlink()
    assert {"modules.alias", "modules.devname"} <= set(runs.run().written)
    runs.expect_as_fresh()


def test_a_change_of_builtin_modules_is_noticed(runs: Runs) -> None:
    (runs.tree / "modules.builtin").write_text("kernel/x.ko\n")
    assert "modules.builtin.bin" in runs.run().written
    runs.expect_as_fresh()


def test_what_was_said_is_said_again(runs: Runs) -> None:
    (runs.tree / "a.ko").write_bytes(module("broken[x"))
    (runs.tree / "b.ko").write_bytes(b"no module")
    runs.run()
    first = list(runs.said)
    assert "Unmatched bracket in broken[x" in first
    assert any("failed to load symbols" in text for text in first)
    runs.run()
    assert runs.said == first


def test_a_module_that_could_not_be_read_is_tried_again(runs: Runs) -> None:
    (runs.tree / "b.ko").write_bytes(b"no module")
    runs.run()
    assert runs.run().read == 1


@pytest.mark.parametrize("damage", [b"", b"garbage\nmore", None])
def test_a_damaged_memory_is_no_memory(runs: Runs, damage: bytes | None) -> None:
    (file,) = runs.cache.glob("depmod/*/memory")
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if damage is None else damage)
    assert runs.run().read == 3
    assert runs.run().read == 0


def test_somebody_elses_memory_is_not_trusted(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(str(runs.cache), str(runs.tree), str(runs.tree), "children-first False")
    assert memory.recall() is not NOTHING
    monkeypatch.setattr(depmod_cache.os, "geteuid", lambda: 4242)
    assert memory.recall() is NOTHING


def test_a_cache_that_cannot_be_written_does_not_matter(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    runs.cache = tmp_path / "file"
    assert runs.run().read == 3


def test_another_output_has_a_memory_of_its_own(runs: Runs, tmp_path: Path) -> None:
    options = DepmodOptions(str(runs.tree), RELEASE, str(tmp_path / "out"), config=(), cache=str(runs.cache))
    assert depmod(options).written == FILES
    assert depmod(options).written == ()
    assert runs.run().written == ()


def test_the_cache_room_knows_the_entry(runs: Runs) -> None:
    cache = Cache(runs.cache)
    (entry,) = cache.entries()
    assert entry.kind == "depmod"
    assert cache.entry("depmod", entry.key) is not None
    assert cache.check() == []
    assert cache.clean() == 1
    assert runs.run().read == 3


def test_old_memories_are_dropped(runs: Runs, tmp_path: Path) -> None:
    for number in range(20):
        options = DepmodOptions(str(runs.tree), RELEASE, str(tmp_path / f"o{number}"), config=(), cache=str(runs.cache))
        depmod(options)
    assert len(list(runs.cache.glob("depmod/*"))) <= 17
