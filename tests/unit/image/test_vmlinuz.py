"""A vmlinuz gives back the vmlinux in it, whatever packed it, and says what is wrong with a damaged one."""

from __future__ import annotations

import struct

import pytest

from image_builders import PACKERS, bz_image
from kobox.errors import BadFile, NotModelled
from kobox.image.vmlinuz import packing_of, read_header, unpack

VMLINUX = b"\x7fELF" + bytes(range(256)) * 300


@pytest.mark.parametrize("packing", PACKERS)
def test_every_packing_of_the_kernel_build_is_unpacked(packing: str) -> None:
    packed = bz_image(VMLINUX, packing)
    assert packing_of(packed, "vmlinuz") == packing
    assert unpack(packed, "vmlinuz") == VMLINUX


def test_the_release_is_the_first_word_of_the_banner() -> None:
    header = read_header(bz_image(VMLINUX, "gzip", "6.1.0-56-amd64 (debian-kernel) #1 SMP"), "vmlinuz")
    assert header.release == "6.1.0-56-amd64"
    assert header.protocol == 0x20F


def test_a_vmlinux_passes_as_it_is() -> None:
    assert unpack(VMLINUX, "vmlinux") == VMLINUX


@pytest.mark.parametrize("packing", [name for name in PACKERS if name != "none"])
def test_a_file_cut_inside_the_payload_is_named_as_such(packing: str) -> None:
    packed = bz_image(VMLINUX, packing)
    with pytest.raises(BadFile, match="cut short"):
        unpack(packed[: len(packed) - 0x80], "vmlinuz")


@pytest.mark.parametrize("packing", [name for name in PACKERS if name not in ("none", "lzo")])
def test_a_stream_that_ends_early_is_damage(packing: str) -> None:
    packed = bytearray(bz_image(VMLINUX, packing))
    (size,) = struct.unpack_from("<I", packed, 0x24C)
    struct.pack_into("<I", packed, 0x24C, size // 2)
    with pytest.raises(BadFile, match=rf"payload \({packing}\)"):
        unpack(bytes(packed), "vmlinuz")


@pytest.mark.parametrize("packing", ["xz", "gzip", "bzip2"])
def test_a_flipped_byte_is_damage(packing: str) -> None:
    packed = bytearray(bz_image(VMLINUX, packing))
    packed[0x440 + 60] ^= 0xFF
    with pytest.raises(BadFile, match="payload"):
        unpack(bytes(packed), "vmlinuz")


def test_the_length_behind_the_stream_is_compared() -> None:
    packed = bytearray(bz_image(VMLINUX, "gzip"))
    offset, size = struct.unpack_from("<II", packed, 0x248)
    struct.pack_into("<I", packed, 0x400 + offset + size - 4, 17)
    with pytest.raises(BadFile, match="unpacked size: found 0x12c04, expected 0x11"):
        unpack(bytes(packed), "vmlinuz")


def test_an_unknown_packing_is_not_modelled() -> None:
    packed = bytearray(bz_image(VMLINUX, "gzip"))
    packed[0x440:0x446] = b"UNKNOW"
    with pytest.raises(NotModelled, match="55 4e 4b 4e 4f 57"):
        unpack(bytes(packed), "vmlinuz")


@pytest.mark.parametrize("data", [b"", b"MZ", bytes(4096), b"\x7fEL"])
def test_what_is_no_kernel_is_refused(data: bytes) -> None:
    with pytest.raises(BadFile, match="no x86 kernel"):
        unpack(data, "file")


def test_a_boot_protocol_without_a_payload_is_refused() -> None:
    packed = bytearray(bz_image(VMLINUX, "gzip"))
    struct.pack_into("<H", packed, 0x206, 0x0206)
    with pytest.raises(BadFile, match="boot protocol"):
        read_header(bytes(packed), "vmlinuz")
