"""Exports carry address, CRC, licence and name space."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from image_builders import KernelBuilder
from kobox.errors import BadFile
from kobox.image import Cache, Image
from kobox.image.image import build_image, open_entry


def _image(builder: KernelBuilder, folder: Path) -> Image:
    return open_entry(build_image(Cache(folder), builder.build(), b"", "vmlinux"))


def test_an_export_has_what_a_module_is_checked_against(tmp_path: Path) -> None:
    exports = _image(KernelBuilder(), tmp_path).exports
    plain, restricted = exports["exported"], exports["exported_gpl"]
    assert (plain.gpl, plain.namespace, plain.crc) == (False, "", zlib.crc32(b"exported"))
    assert (restricted.gpl, restricted.namespace, restricted.crc) == (True, "SPACE", zlib.crc32(b"exported_gpl"))


def test_an_export_is_where_kallsyms_has_the_symbol(tmp_path: Path) -> None:
    image = _image(KernelBuilder(), tmp_path)
    assert {name: export.address for name, export in image.exports.items()} == {
        name: image.symbols[name] for name in ("exported", "exported_gpl")
    }


def test_a_kernel_without_versions_has_no_crcs(tmp_path: Path) -> None:
    exports = _image(KernelBuilder(crcs=False), tmp_path).exports
    assert [export.crc for export in exports.values()] == [None, None]


def test_what_is_not_exported_is_absent(tmp_path: Path) -> None:
    exports = _image(KernelBuilder(), tmp_path).exports
    assert "_text" not in exports
    assert exports.get("_text") is None


def test_a_name_outside_the_kernel_is_damage(tmp_path: Path) -> None:
    builder = KernelBuilder()
    data = bytearray(builder.build())
    places = {name: address for name, address, _ in builder.symbols}
    offset = places["__start___ksymtab"] - places["_text"] + 0x1000
    data[offset + 4 : offset + 8] = b"\xff\xff\xff\x7f"
    with pytest.raises(BadFile, match="a name lies outside the kernel"):
        build_image(Cache(tmp_path), bytes(data), b"", "vmlinux")
