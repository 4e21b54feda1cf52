"""The record behind ``kobox kernel show`` and ``list``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from image_builders import RELEASE, KernelBuilder
from kobox.image import Cache
from kobox.image.adding import AddOptions, add_paths
from kobox.image.overview import list_line, overview


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KOBOX_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("KOBOX_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "vmlinuz").write_bytes(KernelBuilder().packed())
    return tmp_path


def test_it_counts_what_is_there(home: Path) -> None:
    (home / f"mods/{RELEASE}/kernel").mkdir(parents=True)
    for name in ("a.ko", "b.ko.xz", "c.txt"):
        (home / f"mods/{RELEASE}/kernel" / name).touch()
    added, image = add_paths([home / "vmlinuz"], AddOptions(modules=home / "mods" / RELEASE))
    facts = overview(image, added, Cache())
    assert (facts.release, facts.module_count, facts.initcalls, facts.packing) == (RELEASE, 2, 2, "gzip")
    assert (facts.exports, facts.exports_gpl, facts.exports_with_crc) == (2, 1, 2)
    assert facts.exports_by_namespace == {"SPACE": 1}
    assert facts.types == len(image.btf) - 1
    assert facts.boots == ()


def test_boots_of_this_image_are_shown_with_their_report(home: Path) -> None:
    added, image = add_paths([home / "vmlinuz"], AddOptions())

    def boot(work: Path) -> dict[str, str]:
        (work / "boot.json").write_text(json.dumps({"seconds": 2.5}))
        return {"image": image.key, "cpu": "qemu64"}

    Cache().build("boot", "mine", boot)
    Cache().build("boot", "another", lambda work: {"image": "other"})
    (found,) = overview(image, added, Cache()).boots
    assert (found.key, found.report) == ("mine", {"cpu": "qemu64", "seconds": 2.5})


def test_a_list_line_tells_whether_the_cache_has_it(home: Path) -> None:
    added, _ = add_paths([home / "vmlinuz"], AddOptions())
    assert list_line(added, Cache()).ready
    Cache().clean()
    line = list_line(added, Cache())
    assert (line.ready, line.booted, line.cache_size) == (False, False, 0)
