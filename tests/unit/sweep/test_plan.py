"""What is swept and in what order."""

from __future__ import annotations

from pathlib import Path

import pytest

from kobox.depot.tree import ModuleTree
from kobox.errors import UsageError
from kobox.sweep.life import Shared
from kobox.sweep.plan import find_tree, forget_known, items_of, portions
from kobox.sweep.records import Item, ModuleResult

DEP = """\
kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko
kernel/fs/jbd2/jbd2.ko:
kernel/lib/crc16.ko:
kernel/net/snd-x.ko: kernel/lib/crc16.ko
"""


@pytest.fixture
def tree(tmp_path: Path) -> ModuleTree:
    folder = tmp_path / "lib/modules/6.1.0-test"
    folder.mkdir(parents=True)
    (folder / "modules.dep").write_text(DEP)
    (folder / "modules.symbols").write_text("alias symbol:known_one jbd2\n")
    return ModuleTree.at(folder)


def test_dependencies_come_in_the_order_in_which_they_are_loaded(tree: ModuleTree) -> None:
    items = {item.name: item for item in items_of(tree, [])}
    assert list(items) == ["ext4", "jbd2", "crc16", "snd_x"]
    assert items["ext4"].needs == ("kernel/lib/crc16.ko", "kernel/fs/jbd2/jbd2.ko")


@pytest.mark.parametrize(
    ("patterns", "names"),
    [(["ext4"], ["ext4"]), (["kernel/fs/*"], ["ext4", "jbd2"]), (["snd-x", "crc*"], ["crc16", "snd_x"])],
)
def test_modules_are_selected_by_name_or_path(tree: ModuleTree, patterns: list[str], names: list[str]) -> None:
    assert [item.name for item in items_of(tree, patterns)] == names


def test_patterns_that_fit_nothing_are_named(tree: ModuleTree) -> None:
    with pytest.raises(UsageError, match="no module fits nosuch"):
        items_of(tree, ["nosuch"])


def test_modules_with_the_same_dependencies_are_neighbours_and_all_are_there() -> None:
    items = [Item(f"m{number}", f"m{number}.ko", (("a", "b", "c")[number % 3],)) for number in range(100)]
    pieces = portions(items, 2)
    flat = [item for piece in pieces for item in piece]
    assert sorted(flat) == sorted(items)
    assert [item.needs for item in flat] == sorted(item.needs for item in items)
    assert max(map(len, pieces)) <= 3


def test_beginnings_that_two_modules_share_are_worth_keeping() -> None:
    items = [Item("m", "m", ("a", "b")), Item("n", "n", ("a", "c")), Item("o", "o", ("b",))]
    assert Shared.of(items).beginnings == {("a",)}
    assert Shared.of([*items, Item("p", "p", ("a", "b"))]).wholes == {("a", "b")}


def test_the_tree_of_the_kernels_own_release_is_taken_from_a_root(tree: ModuleTree, tmp_path: Path) -> None:
    (tmp_path / "lib/modules/6.9").mkdir()
    assert find_tree(str(tmp_path), "6.1.0-test", None).name == "6.1.0-test"
    with pytest.raises(UsageError, match=r"6\.12"):
        find_tree(str(tmp_path), "6.12", None)
    with pytest.raises(UsageError, match="without modules"):
        find_tree(None, "bare", None)


def test_symbols_that_a_module_of_the_tree_exports_are_not_missing(tree: ModuleTree) -> None:
    result = ModuleResult("m", "m.ko", missing=("known_one", "unknown_one"))
    forget_known([result], tree)
    assert result.missing == ("unknown_one",)
