"""Added images: what is kept, how one is found, and that adding again or dying half-way does no harm."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest

from image_builders import RELEASE, KernelBuilder, deb
from kobox.errors import BadFile, UsageError
from kobox.image import Cache, data_root, find_image, list_images, look_for_kernel, open_image, remove_image
from kobox.image.adding import AddOptions, add_packages, add_paths


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KOBOX_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("KOBOX_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="module")
def vmlinuz() -> bytes:
    return KernelBuilder().packed()


@pytest.fixture
def root(home: Path, vmlinuz: bytes) -> Path:
    """An unpacked root with a kernel, its configuration and one module."""
    folder = home / "root"
    for name, content in {
        f"boot/vmlinuz-{RELEASE}": vmlinuz,
        f"boot/config-{RELEASE}": b"CONFIG_SMP=y\n",
        f"lib/modules/{RELEASE}/kernel/one.ko": b"module",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def _package(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    path = folder / f"{name}.deb"
    path.write_bytes(deb({f"./{file}": content for file, content in files.items()}, package=name, packing="gz"))
    return path


def test_a_root_is_added_where_it_stands(root: Path) -> None:
    added, image = add_paths([root], AddOptions())
    assert (added.release, added.kind, added.source) == (RELEASE, "root", str(root))
    assert image.modules == root / "lib/modules" / RELEASE
    assert list_images() == (added,)


def test_an_added_image_opens_by_release_without_its_source(root: Path) -> None:
    add_paths([root], AddOptions())
    (root / f"boot/vmlinuz-{RELEASE}").unlink()
    Cache().clean()
    assert open_image(RELEASE).config["SMP"] == "y"


def test_packages_become_one_root(home: Path, vmlinuz: bytes) -> None:
    packages = [
        _package(home, "linux-binary", {f"usr/lib/modules/{RELEASE}/vmlinuz": vmlinuz}),
        _package(home, "linux-base", {f"usr/lib/modules/{RELEASE}/config": b"CONFIG_HZ=250\n"}),
        _package(home, "linux-modules", {f"usr/lib/modules/{RELEASE}/kernel/one.ko": b"module"}),
    ]
    added, image = add_paths(packages, AddOptions())
    assert added.source == "linux-binary 1.0, linux-base 1.0, linux-modules 1.0"
    assert image.config["HZ"] == "250"
    assert image.modules == data_root() / "images" / RELEASE / "root/lib/modules" / RELEASE
    assert (image.modules / "kernel/one.ko").read_bytes() == b"module"
    assert Path(added.kernel).read_bytes() == vmlinuz


def test_who_vouched_for_packages_is_kept(home: Path, vmlinuz: bytes) -> None:
    package = _package(home, "linux-image", {f"boot/vmlinuz-{RELEASE}": vmlinuz})
    add_packages([package], AddOptions(), kind="apt", origin="a mirror", checked="apt's signatures")
    added = find_image(RELEASE)
    assert added is not None
    assert (added.kind, added.checked, added.source) == ("apt", "apt's signatures", "linux-image 1.0 (a mirror)")


def test_packages_without_a_kernel_say_so(home: Path) -> None:
    with pytest.raises(UsageError, match="no kernel in there"):
        add_paths([_package(home, "linux-doc", {"boot/readme": b""})], AddOptions())
    assert list((data_root() / "images").iterdir()) == []


def test_a_kernel_file_takes_modules_by_hand(home: Path, vmlinuz: bytes) -> None:
    (home / "vmlinuz").write_bytes(vmlinuz)
    (home / "mods").mkdir()
    added, image = add_paths([home / "vmlinuz"], AddOptions(modules=home / "mods"))
    assert added.kind == "file"
    assert image.modules == home / "mods"


def test_a_kernel_file_without_modules_has_none(home: Path, vmlinuz: bytes) -> None:
    (home / "vmlinuz").write_bytes(vmlinuz)
    added, image = add_paths([home / "vmlinuz"], AddOptions())
    assert (added.modules, image.modules) == ("", None)


def test_adding_again_replaces(root: Path) -> None:
    first, _ = add_paths([root], AddOptions())
    second, _ = add_paths([root], AddOptions())
    assert second.added > first.added
    assert list_images() == (second,)


def test_what_a_killed_add_left_is_ignored_and_swept(root: Path) -> None:
    left = data_root() / "images" / f".tmp-{RELEASE}-dead"
    left.mkdir(parents=True)
    assert list_images() == ()
    add_paths([root], AddOptions())
    assert not left.exists()


def _die_at(step: int, package: Path) -> None:
    steps: list[str] = []

    def progress(text: str) -> None:
        steps.append(text)
        if len(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    add_paths([package], AddOptions(progress=progress))


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_an_add_that_is_killed_can_be_done_again(home: Path, vmlinuz: bytes, step: int) -> None:
    package = _package(home, "linux-image", {f"boot/vmlinuz-{RELEASE}": vmlinuz})
    process = multiprocessing.get_context("fork").Process(target=_die_at, args=(step, package))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert list_images() == ()
    add_paths([package], AddOptions())
    assert open_image(RELEASE).release == RELEASE
    assert [path.name for path in (data_root() / "images").iterdir()] == [RELEASE]
    assert Cache().check() == []


def test_a_module_tree_that_went_away_is_none(root: Path) -> None:
    add_paths([root], AddOptions())
    shutil.rmtree(root / "lib")
    assert open_image(RELEASE).modules is None


def test_removing_takes_record_and_cache(root: Path) -> None:
    add_paths([root], AddOptions())
    Cache().build("boot", "b", lambda work: {"image": open_image(RELEASE).key})
    Cache().build("boot", "other", lambda work: {"image": "another"})
    remove_image(RELEASE)
    assert find_image(RELEASE) is None
    assert [entry.key for entry in Cache().entries()] == ["other"]
    assert root.exists()


def test_an_unknown_release_names_the_nearest(root: Path) -> None:
    add_paths([root], AddOptions())
    with pytest.raises(UsageError, match=f"no image '6.9.0-tset'.*did you mean '{RELEASE}'"):
        open_image("6.9.0-tset")
    with pytest.raises(UsageError, match="no image"):
        remove_image("../..")


def test_with_no_image_the_hint_is_how_to_get_one() -> None:
    with pytest.raises(UsageError, match="kobox kernel add --debian"):
        open_image("0.0.1-nothing")


def test_a_root_opens_by_path_without_being_added(root: Path) -> None:
    assert open_image(root).modules == root / "lib/modules" / RELEASE
    assert open_image(str(root / f"boot/vmlinuz-{RELEASE}")).release == RELEASE
    assert list_images() == ()


def test_a_root_with_several_kernels_asks_which(root: Path, vmlinuz: bytes) -> None:
    (root / "boot/vmlinuz-other").write_bytes(vmlinuz)
    with pytest.raises(UsageError, match="several kernels"):
        look_for_kernel(root)


@pytest.mark.parametrize("path", ["nothing", "empty"])
def test_a_path_without_a_kernel_is_refused(home: Path, path: str) -> None:
    (home / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no such file|no kernel in it"):
        open_image(home / path)


def test_packages_and_other_paths_do_not_mix(root: Path) -> None:
    with pytest.raises(UsageError, match="several paths"):
        add_paths([root, root], AddOptions())


def test_a_damaged_record_is_named_and_left_out(root: Path) -> None:
    added, _ = add_paths([root], AddOptions())
    record = data_root() / "images" / RELEASE / "image.json"
    record.write_text(json.dumps({"release": added.release}))
    assert list_images() == ()
    with pytest.raises(BadFile, match="damaged record"):
        find_image(RELEASE)


def test_a_damaged_cache_entry_is_made_again(root: Path) -> None:
    _, image = add_paths([root], AddOptions())
    index = image.path / "index.bin"
    whole = index.read_bytes()
    index.unlink()  # not cut in place: the open image has it mapped
    index.write_bytes(whole[:-8])
    notes: list[str] = []
    assert open_image(RELEASE, Cache(note=notes.append)).symbols["_text"] == image.symbols["_text"]
    assert "is damaged" in notes[0]
