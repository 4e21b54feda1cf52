"""The installed depmod and kobox's, asked the same: random trees, and Debian's own, plain and compressed."""

from __future__ import annotations

import gzip
import importlib.util
import lzma
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import zstandard

from builders import UNDEF, KoBuilder
from depot_roots import chroot_kmod, run_in_root
from kobox.cli import main
from kobox.depot.depmod import DepmodOptions, depmod
from kobox.depot.depmod_write import FILES
from kobox.depot.names import MODULE_SUFFIXES
from needs import lacking, need_program

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "xz": lambda data: lzma.compress(data, preset=0),
    "zst": zstandard.compress,
    "gz": lambda data: gzip.compress(data, 1),
}


def _load_comparer() -> ModuleType:
    path = Path(__file__).parents[3] / "tools/compare_depmod.py"
    spec = importlib.util.spec_from_file_location("compare_depmod", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare_depmod"] = module
    spec.loader.exec_module(module)
    return module


def _need_old_kmod() -> None:
    """kmod 34 orders nodes differently; which differences between releases are allowed is REFERENCE's business."""
    need_program("depmod")
    path = os.environ.get("PATH", "") + ":/sbin:/usr/sbin"
    told = subprocess.run(["depmod", "--version"], capture_output=True, text=True, env={"PATH": path}, check=True)
    if int(told.stdout.split()[2].partition(".")[0]) >= 33:
        lacking("this comparison is with a kmod before 33")


@pytest.mark.parametrize("seed", range(0, 200, 20))
def test_random_trees_are_indexed_alike(seed: int) -> None:
    _need_old_kmod()
    assert _load_comparer().compare(seed) == []


@pytest.mark.full
def test_a_thousand_random_trees_are_indexed_alike() -> None:
    _need_old_kmod()
    compare = _load_comparer().compare
    assert [difference for seed in range(10_000, 11_000) for difference in compare(seed)] == []


def test_a_systems_external_directories_are_indexed_as_its_own_depmod_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _need_old_kmod()
    need_program("chroot", "unshare", "ldd")
    tree = tmp_path / "lib/modules/6.1"
    for path, exports, needs in (
        (tree / "kernel/both.ko", "", ""),
        (tree / "kernel/user.ko", "", "given"),
        (tmp_path / "opt/extra/both.ko", "", ""),
        (tmp_path / "opt/extra/giver.ko", "given", ""),
    ):
        builder = KoBuilder().text()
        if exports:
            builder.export(exports)
        if needs:
            builder.symbol(needs, UNDEF)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(builder.modinfo(license="GPL").build())
    conf = tmp_path / "etc/depmod.d/x.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text("external * /opt/extra\nsearch external built-in\n")
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        (tree / name).touch()
    chroot_kmod(tmp_path)
    assert run_in_root(tmp_path, "depmod", ["6.1"]) == (0, "", "")
    theirs = {name: (tree / name).read_bytes() for name in FILES if (tree / name).exists()}
    assert b"kernel/user.ko: /opt/extra/giver.ko\n" in theirs["modules.dep"]
    monkeypatch.setenv("KOBOX_CACHE_DIR", str(tmp_path / "cache"))
    assert main(["depmod", "--root", str(tmp_path)]) == 0
    assert {name: (tree / name).read_bytes() for name in theirs} == theirs


@pytest.fixture(scope="module")
def debian_tree(debian_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the distribution's tree with a tenth of its modules, and what they need."""
    return _copied(debian_root, tmp_path_factory.mktemp("part"), 10)


@pytest.mark.image
def test_a_part_of_a_distribution_is_indexed_byte_by_byte(debian_tree: Path) -> None:
    _need_old_kmod()
    assert _differences(debian_tree) == []


@pytest.mark.image
@pytest.mark.full
def test_a_whole_distribution_is_indexed_byte_by_byte(debian_root: Path, tmp_path: Path) -> None:
    _need_old_kmod()
    assert _differences(_copied(debian_root, tmp_path, 1)) == []


@pytest.mark.image
@pytest.mark.parametrize("kind", sorted(COMPRESSORS))
def test_a_compressed_part_of_a_distribution_is_indexed_byte_by_byte(
    debian_root: Path, tmp_path: Path, kind: str
) -> None:
    _need_old_kmod()
    assert _compressed_differences(debian_root, tmp_path, 30, kind) == []


@pytest.mark.image
@pytest.mark.full
@pytest.mark.parametrize("kind", sorted(COMPRESSORS))
def test_a_compressed_distribution_is_indexed_byte_by_byte(debian_root: Path, tmp_path: Path, kind: str) -> None:
    _need_old_kmod()
    assert _compressed_differences(debian_root, tmp_path, 1, kind) == []


@pytest.mark.image
@pytest.mark.full
def test_a_distribution_that_comes_compressed_is_indexed_byte_by_byte(trixie_root: Path, tmp_path: Path) -> None:
    _need_old_kmod()
    tree = _copied(trixie_root, tmp_path, 1)
    assert [*tree.rglob("*.ko.xz")]
    assert _differences(tree) == []


def _compressed_differences(root: Path, folder: Path, step: int, kind: str) -> list[str]:
    """As ``_differences``. Debian's kmod cannot read gzip: what it says of xz has names of the same length instead."""
    theirs_kind = "xz" if kind == "gz" else kind
    theirs = _indexed_by_kmod(_compressed(_copied(root, folder / "theirs", step), theirs_kind))
    tree = _compressed(_copied(root, folder / "ours", step), kind)
    depmod(DepmodOptions(str(tree), tree.name))
    renamed = {
        name: data.replace(f".ko.{theirs_kind}".encode(), f".ko.{kind}".encode()) for name, data in theirs.items()
    }
    assert renamed["modules.dep"].count(f".ko.{kind}:".encode()) == len([*tree.rglob("*.ko.*")]) > 100
    return [name for name, data in renamed.items() if (tree / name).read_bytes() != data]


def _compressed(tree: Path, kind: str) -> Path:
    """The tree, each module in it replaced by a compressed one."""
    for path in list(tree.rglob("*.ko")):
        path.with_name(f"{path.name}.{kind}").write_bytes(COMPRESSORS[kind](path.read_bytes()))
        path.unlink()
    return tree


def _copied(root: Path, target: Path, step: int) -> Path:
    source = next(path for path in (root / "lib/modules").iterdir() if (path / "kernel").is_dir())
    tree = target / "lib/modules" / source.name
    for number, path in enumerate(sorted(source.rglob("*"))):
        copy = tree / path.relative_to(source)
        if path.name.endswith(MODULE_SUFFIXES) and number % step == 0:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.symlink_to(path) if step > 1 else shutil.copy(path, copy)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(source / name, tree / name)
    return tree


def _differences(tree: Path) -> list[str]:
    """Names of files that the installed depmod writes differently."""
    theirs = _indexed_by_kmod(tree)
    result = depmod(DepmodOptions(str(tree), tree.name))
    assert len(result.modules) > 100
    return [name for name, data in theirs.items() if (tree / name).read_bytes() != data]


def _indexed_by_kmod(tree: Path) -> dict[str, bytes]:
    """What the installed depmod writes: all files but modules.weakdep, which is younger."""
    path = os.environ.get("PATH", "") + ":/sbin:/usr/sbin"
    subprocess.run(["depmod", "-b", str(tree.parents[2]), tree.name], check=True, env={"PATH": path})
    written = {name: (tree / name).read_bytes() for name in FILES if (tree / name).exists()}
    assert len(written) == len(FILES) - 1
    return written
