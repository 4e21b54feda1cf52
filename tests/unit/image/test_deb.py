"""Packages are unpacked without dpkg, and nothing leaves the directory."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from image_builders import deb
from kobox.errors import BadFile, KoboxError, NotModelled
from kobox.image.deb import extract, read_deb


def _package(folder: Path, data: bytes) -> Path:
    path = folder / "linux-image.deb"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("packing", ["xz", "gz", "zst", "none"])
def test_every_packing_is_unpacked(tmp_path: Path, packing: str) -> None:
    path = _package(tmp_path, deb({"./boot/vmlinuz-1": b"kernel" * 1000}, packing=packing))
    assert extract(read_deb(path), tmp_path / "root") == 1
    assert (tmp_path / "root/boot/vmlinuz-1").read_bytes() == b"kernel" * 1000


def test_control_fields_are_read(tmp_path: Path) -> None:
    found = read_deb(_package(tmp_path, deb({}, package="linux-image-6.1", version="6.1.1-1")))
    assert (found.package, found.version) == ("linux-image-6.1", "6.1.1-1")
    assert found.fields["Description"] == "a test\nof packages"


def test_only_what_a_kernel_is_made_of_is_taken(tmp_path: Path) -> None:
    files = {
        "./boot": None,
        "./boot/config-1": b"",
        "./usr/share/doc/linux/copyright": b"text",
        "./etc/passwd": b"root",
        "./lib/modules/1/kernel/a.ko": b"a",
        "./usr/lib/modules/1/kernel/b.ko": b"b",
        "./usr/src/linux-headers-1/Makefile": b"all:",
    }
    assert extract(read_deb(_package(tmp_path, deb(files))), tmp_path / "root") == 4
    assert not (tmp_path / "root/etc").exists()
    assert not (tmp_path / "root/usr/share").exists()


@pytest.mark.parametrize("name", ["./boot/../../evil", "boot/../../../evil", "/boot/../../evil"])
def test_a_name_that_leaves_the_directory_is_refused(tmp_path: Path, name: str) -> None:
    path = _package(tmp_path, deb({name: b"evil"}))
    with pytest.raises(BadFile, match="leaves the directory"):
        extract(read_deb(path), tmp_path / "deep/er/root")
    assert not list(tmp_path.rglob("evil"))


def test_a_file_through_a_link_of_the_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    files = {"./boot/link": f"-> {tmp_path}/outside", "./boot/link/evil": b"evil"}
    with pytest.raises(BadFile, match="leaves the directory"):
        extract(read_deb(_package(tmp_path, deb(files))), tmp_path / "root")
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_file_over_a_link_replaces_the_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("safe")
    files = {"./boot/link": f"-> {victim}", "./boot/other": b"x"}
    extract(read_deb(_package(tmp_path, deb(files))), tmp_path / "root")
    extract(read_deb(_package(tmp_path, deb({"./boot/link": b"evil"}))), tmp_path / "root")
    assert victim.read_text() == "safe"
    assert (tmp_path / "root/boot/link").read_bytes() == b"evil"


def test_links_are_kept(tmp_path: Path) -> None:
    files = {
        "./boot/one": b"1",
        "./boot/two": "-> one",
        "./boot/three": "=> ./boot/one",
        "./lib/modules/1/build": "-> /usr/src/linux-headers-1",
    }
    extract(read_deb(_package(tmp_path, deb(files))), tmp_path / "root")
    root = tmp_path / "root"
    assert (root / "boot/two").read_bytes() == (root / "boot/three").read_bytes() == b"1"
    assert os.readlink(root / "lib/modules/1/build") == "/usr/src/linux-headers-1"


def test_a_hard_link_to_the_outside_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="leaves the directory"):
        extract(read_deb(_package(tmp_path, deb({"./boot/x": "=> ../../etc/passwd"}))), tmp_path / "root")


def test_a_cut_package_is_named_as_such(tmp_path: Path) -> None:
    whole = deb({"./boot/vmlinuz-1": os.urandom(5000)})
    with pytest.raises(BadFile, match="package is cut short"):
        read_deb(_package(tmp_path, whole[:-100]))


@pytest.mark.parametrize("packing", ["xz", "gz", "zst"])
def test_damage_inside_is_one_error(tmp_path: Path, packing: str) -> None:
    whole = bytearray(deb({"./boot/vmlinuz-1": os.urandom(50000)}, packing=packing))
    whole[-1000] ^= 0xFF  # inside random data: only the checksum at the end can tell
    found = read_deb(_package(tmp_path, bytes(whole)))
    with pytest.raises(BadFile, match="damaged"):
        extract(found, tmp_path / "root")


@pytest.mark.parametrize("data", [b"", b"no archive at all", b"!<arch>\n", b"!<arch>\nshort header"])
def test_what_is_no_package_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BadFile):
        read_deb(_package(tmp_path, data))


def test_an_unknown_packing_is_not_modelled(tmp_path: Path) -> None:
    data = deb({"./boot/x": b"x"}, packing="none").replace(b"data.tar  ", b"data.tar.y")
    found = read_deb(_package(tmp_path, data))
    with pytest.raises(NotModelled, match="packing is not known"):
        extract(found, tmp_path / "root")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=4), st.sampled_from(["xz", "gz", "none"]))
def test_changed_bytes_give_files_or_an_error(tmp_path: Path, place: int, change: bytes, packing: str) -> None:
    files = {"./boot": None, "./boot/vmlinuz-1": b"kernel" * 300, "./lib/modules/1/a.ko": "-> b.ko"}
    data = bytearray(deb(files, packing=packing))
    place %= len(data)
    data[place : place + len(change)] = change
    target = tmp_path / "root"
    with contextlib.suppress(KoboxError, OSError):
        extract(read_deb(_package(tmp_path, bytes(data))), target)
    outside = {path for path in tmp_path.rglob("*") if target not in (path, *path.parents)}
    assert outside == {tmp_path / "linux-image.deb"}
