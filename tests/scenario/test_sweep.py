"""``kobox sweep`` on real kernels: what a real machine answered for the same modules, and that lives leave no trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kobox.box import Kernel
from kobox.cli import main
from kobox.image import Image
from kobox.sweep import SweepOptions, sweep
from kobox.sweep.inventory import added, take
from kobox.sweep.kernfs import Kernfs, _Files
from paths import EXAMPLES
from schemas import problems_of_command

pytestmark = pytest.mark.image


def test_a_sweep_answers_as_the_recorded_machine_did(kobox_image: str) -> None:
    names = (
        "dummy",
        "ext4",
        "jbd2",
        "loop",
        "speakup_soft",
        "sha512_ssse3",
        "vfb",
        "n_hdlc",
        "binder_linux",
        "kvm_amd",
    )
    seen: list[str] = []
    report = sweep(
        SweepOptions(kobox_image, select=names, jobs=1), seen=lambda result, done, total: seen.append(result.name)
    )
    found = {result.name: result for result in report.modules}
    assert sorted(seen) == sorted(names) == sorted(found)
    assert {name: found[name].load for name in names} == dict.fromkeys(names, 0) | {"sha512_ssse3": 19, "vfb": 6}
    assert found["dummy"].registered == {"net": ("dummy0",), "classdev": ("net/dummy0",)}
    assert found["ext4"].registered == {"filesystems": ("ext2", "ext3", "ext4"), "sys_fs": ("ext4",)}
    assert found["loop"].log == ((6, "loop: module loaded"),)
    assert found["n_hdlc"].registered["ldisc"] == ("hdlc",)
    assert found["kvm_amd"].registered["debugfs"] == ("kvm",)
    assert found["speakup_soft"].registered["misc"] == ("122 softsynthu", "123 softsynth")
    assert found["sha512_ssse3"].unload is None
    binder = found["binder_linux"]
    assert (binder.unload, binder.permanent, binder.pinned) == (16, True, ("binder_linux",))
    assert binder.leftover["misc"] == ("124 binder",)
    others = [found[name] for name in names if name != "binder_linux"]
    assert not any(result.leftover or result.lost or result.pinned for result in others)
    assert report.ok


def test_the_command_sweeps_in_processes_and_writes_its_three_reports(
    kobox_image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    html, junit = tmp_path / "page.html", tmp_path / "junit.xml"
    code = main(
        ["sweep", "--image", kobox_image, "--jobs", "2", "--json", "--html", str(html), "--junit", str(junit),
         "--select", "dummy", "veth", "nls_*"]
    )  # fmt: skip
    report = json.loads(capsys.readouterr().out)
    assert code == 0
    assert problems_of_command(report, "sweep") == []
    assert report["modules"]["dummy"]["registered"]["net"] == ["dummy0"]
    assert report["summary"]["jobs"] == 2
    assert len(report["modules"]) == report["summary"]["modules"] > 40
    assert html.read_text().count("<tr class=") == len(report["modules"])
    assert junit.read_text().count("<testcase ") == len(report["modules"])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_crash_in_an_init_is_a_result_and_the_next_module_lives(debian_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lib/modules" / next(path.name for path in (debian_root / "lib/modules").iterdir())
    folder.mkdir(parents=True)
    names = ("hello", "walk_oops", "slab")
    for name in names:
        (folder / f"{name}.ko").write_bytes((EXAMPLES / f"{name}.ko").read_bytes())
    (folder / "modules.dep").write_text("".join(f"{name}.ko:\n" for name in names))
    report = sweep(SweepOptions(str(debian_root), root=str(tmp_path), jobs=1))
    found = {result.name: result for result in report.modules}
    assert [found[name].verdict for name in names] == ["loaded", "crashed", "loaded"]
    assert found["walk_oops"].oops.startswith("BUG: ")
    assert found["walk_oops"].taint_after & 128
    assert found["slab"].taint_before == 0
    assert not report.ok
    assert problems_of_command(json.loads(json.dumps(report.as_data())), "sweep") == []


def test_another_release_is_swept_by_the_same_code(trixie_image: Image, trixie_root: Path) -> None:
    report = sweep(SweepOptions(str(trixie_root), select=("dummy", "ext4", "n_hdlc"), jobs=1))
    found = {result.name: result for result in report.modules}
    assert {result.load for result in report.modules} == {0} == {result.unload for result in report.modules}
    assert found["dummy"].registered == {"net": ("dummy0",), "classdev": ("net/dummy0",)}
    assert found["ext4"].registered["filesystems"] == ("ext2", "ext3", "ext4")


def test_the_tree_of_sys_in_memory_lists_what_its_files_list(kernel: Kernel) -> None:
    tree, files = Kernfs.of(kernel).look({}), _Files(kernel)
    assert Kernfs.of(kernel).counted
    for path in ("bus", "bus/pci/drivers", "bus/platform/devices", "class", "class/tty", "kernel", "fs", "no/such"):
        assert sorted(tree.names(path)) == sorted(files.names(path)), path


def test_a_folder_that_changed_is_read_anew(kernel: Kernel, debian_root: Path) -> None:
    before = take(kernel)
    kernel.insmod(next(debian_root.rglob("dummy.ko*")))
    after = take(kernel, before)
    assert added(before, after) == {"net": ("dummy0",), "classdev": ("net/dummy0",)}
    kernel.rmmod("dummy")
    assert added(before, take(kernel, before)) == {}


def test_over_the_bare_kernel_missing_functions_are_ranked_by_demand(debian_root: Path) -> None:
    report = sweep(SweepOptions("bare", root=str(debian_root), select=("kernel/lib/*", "kernel/crypto/*"), jobs=1))
    rows = {symbol: (modules, alone) for symbol, modules, alone in report.summary()["missing"]}
    assert rows["crypto_register_shash"][0] > rows["xxh64"][0] > 0
    assert report.ok, "to lack a function is an answer"
    loaded = [result.name for result in report.modules if result.load == 0]
    assert loaded, "modules that need nothing more load"
    assert all(result.unload == 0 for result in report.modules if result.load == 0)
    folder = next((debian_root / "lib/modules").iterdir())
    exported = {result.name for result in report.modules if "raid6_call" in result.missing}
    assert exported == set(), f"{folder} has a module for this one"
