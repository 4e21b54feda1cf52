"""A module tree below a root: found, read by its indexes or their text twins."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from depot_roots import RELEASE, DepotRoot
from kobox.depot.tree import DepLine, DevNode, ModuleTree, release_of, releases
from kobox.errors import UsageError


@pytest.fixture
def root(tmp_path: Path) -> DepotRoot:
    root = DepotRoot(tmp_path).module("kernel/fs/foo-fs.ko.xz", needs=["kernel/lib/bar.ko"]).module("kernel/lib/bar.ko")
    root.alias("fs-f?o", "foo_fs").symbol("bar_init", "bar").builtin("kernel/a/static-one.ko")
    root.builtin_alias("fs-static", "static_one").softdep("# text\nsoftdep foo_fs pre: bar\n")
    root.conf(f"lib/modules/{RELEASE}/modules.devname", "# x\nfuse fuse c10:229\nbad line\n")
    root.conf(
        f"lib/modules/{RELEASE}/modules.builtin.modinfo",
        "static_one.license=GPL\0static_one.alias=x\0other.license=MIT\0static_one.late=1\0",
    )
    return root.write()


@pytest.mark.parametrize("texts_only", [False, True])
def test_indexes_and_their_text_twins_answer_alike(root: DepotRoot, texts_only: bool) -> None:
    if texts_only:
        for path in root.tree.glob("modules.*.bin"):
            if "builtin.alias" not in path.name:  # the one index without a twin
                path.unlink()
    with ModuleTree(root.path, RELEASE) as tree:
        assert tree.dep_line("foo_fs") == DepLine("kernel/fs/foo-fs.ko.xz", ("kernel/lib/bar.ko",))
        assert tree.dep_line("nothing") is None
        assert tree.find("foo-fs") == f"{root.tree}/kernel/fs/foo-fs.ko.xz"
        assert [name for name, _ in tree.all_deps()][:2] == ["foo_fs", "bar"]
        assert tree.modules_of_alias("fs_fxo") == ["foo_fs"]
        assert tree.modules_of_symbol("symbol:bar_init") == ["bar"]
        assert tree.is_builtin("static_one")
        assert not tree.is_builtin("foo_fs")
        assert "static_one" in list(tree.builtins())
        assert tree.builtins_of_alias("fs_static") == ["static_one"]


def test_configuration_lines_come_with_their_numbers(root: DepotRoot) -> None:
    tree = ModuleTree(root.path, RELEASE)
    assert list(tree.softdeps()) == [(2, "softdep foo_fs pre: bar")]
    assert list(tree.weakdeps()) == []
    assert list(tree.device_nodes()) == [DevNode("fuse", "fuse", "c", 10, 229)]


def test_a_builtin_modules_words_are_its_first_run_of_strings(root: DepotRoot) -> None:
    tree = ModuleTree(root.path, RELEASE)
    assert tree.builtin_info("static_one") == ["license=GPL", "alias=x"]
    assert tree.builtin_info("unknown") is None


def test_module_files_are_found_without_build_and_source(root: DepotRoot) -> None:
    (root.tree / "build").mkdir()
    (root.tree / "build/x.ko").touch()
    tree = ModuleTree(root.path, RELEASE)
    files = [Path(path).relative_to(root.tree).as_posix() for path in tree.module_files()]
    assert sorted(files) == ["kernel/fs/foo-fs.ko.xz", "kernel/lib/bar.ko"]


def test_a_release_below_usr_is_found(tmp_path: Path) -> None:
    (tmp_path / "usr/lib/modules/7.0").mkdir(parents=True)
    assert ModuleTree(tmp_path, "7.0").directory == f"{tmp_path}/usr/lib/modules/7.0"
    assert ModuleTree(tmp_path, "7.0", "lib/modules").directory == f"{tmp_path}/lib/modules/7.0"
    assert releases(tmp_path) == ["7.0"]


def test_the_release_of_is_found_and_several_are_named(tmp_path: Path) -> None:
    running = os.uname().release
    assert release_of(tmp_path) == running
    (tmp_path / "lib/modules/6.1").mkdir(parents=True)
    assert release_of(tmp_path) == "6.1"
    (tmp_path / "lib/modules/6.12").mkdir()
    with pytest.raises(UsageError, match=r"6\.1, 6\.12") as raised:
        release_of(tmp_path, hint="choose")
    assert raised.value.hint == "choose"
    (tmp_path / "lib/modules" / running).mkdir()
    assert release_of(tmp_path) == running


def test_aliases_kept_in_memory_answer_alike(root: DepotRoot) -> None:
    with ModuleTree(root.path, RELEASE) as tree:
        before = tree.modules_of_alias("fs_fxo")
        tree.keep_in_memory()
        assert tree.modules_of_alias("fs_fxo") == before


def test_the_thousandth_look_up_answers_as_the_first(root: DepotRoot) -> None:
    with ModuleTree(root.path, RELEASE) as tree:
        first = tree.modules_of_alias("fs_fxo")
        assert first
        assert all(tree.modules_of_alias("fs_fxo") == first for _ in range(1000))
        assert "modules.alias" in tree._tables
        line = tree.dep_line("bar")
        assert line == DepLine("kernel/lib/bar.ko", ())
        assert all(tree.dep_line("bar") == line and tree.dep_line("nosuch") is None for _ in range(1000))


def test_an_empty_index_counts_as_none(root: DepotRoot) -> None:
    (root.tree / "modules.dep.bin").write_bytes(b"")
    with ModuleTree.at(root.tree) as tree:
        assert tree.index("modules.dep") is None
        assert tree.dep_line("bar") == DepLine("kernel/lib/bar.ko", ())
