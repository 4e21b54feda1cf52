"""Which file system a disk holds, by the marks in its first blocks; no more than a table.

As libblkid's probes; each file system's own headers say where its mark lies.
"""

from __future__ import annotations

import os
from typing import NamedTuple


class Mark(NamedTuple):
    """``kind`` is the kernel's name of the file system; empty for what is none, which ``what`` names."""

    kind: str
    offset: int
    magic: bytes
    what: str = ""


_MARKS = (
    Mark("xfs", 0, b"XFSB"),
    Mark("squashfs", 0, b"hsqs"),
    Mark("erofs", 1024, bytes.fromhex("e2e1f5e0")),
    Mark("f2fs", 1024, bytes.fromhex("1020f5f2")),
    Mark("btrfs", 0x1_0040, b"_BHRfS_M"),
    Mark("ext4", 0x438, bytes.fromhex("53ef")),
    Mark("ntfs3", 3, b"NTFS    "),
    Mark("exfat", 3, b"EXFAT   "),
    Mark("vfat", 0x52, b"FAT32   "),
    Mark("vfat", 0x36, b"FAT16   "),
    Mark("vfat", 0x36, b"FAT12   "),
    Mark("udf", 0x8001, b"BEA01"),
    Mark("iso9660", 0x8001, b"CD001"),
    Mark("hfsplus", 1024, b"H+"),
    Mark("hfsplus", 1024, b"HX"),
    Mark("jfs", 0x8000, b"JFS1"),
    Mark("nilfs2", 1030, bytes.fromhex("3434")),
    Mark("reiserfs", 0x1_0034, b"ReIsEr"),
    Mark("romfs", 0, b"-rom1fs-"),
    Mark("cramfs", 0, bytes.fromhex("453dcd28")),
    Mark("minix", 1040, bytes.fromhex("7f13")),
    Mark("minix", 1040, bytes.fromhex("8f13")),
    Mark("minix", 1040, bytes.fromhex("6824")),
    Mark("minix", 1040, bytes.fromhex("7824")),
    Mark("minix", 1048, bytes.fromhex("5a4d")),
    Mark("", 0, b"LUKS\xba\xbe", "an encrypted volume (LUKS)"),
    Mark("", 512, b"LABELONE", "a physical volume of LVM"),
    Mark("", 4086, b"SWAPSPACE2", "swap space"),
    Mark("", 0, b"QFI\xfb", "a qcow2 image (convert it: qemu-img convert -O raw)"),
    Mark("", 0, b"KDMV", "a VMDK image (convert it: qemu-img convert -O raw)"),
)
"""The first that fits counts."""

KINDS = tuple(sorted({mark.kind for mark in _MARKS if mark.kind}))
"""File systems that are told apart."""

READ_ONLY = frozenset({"squashfs", "erofs", "iso9660", "romfs", "cramfs"})
"""File systems that nothing writes to."""


def probe(path: str, offset: int = 0) -> Mark | None:
    """What begins at ``offset`` of a file or device; None where no mark fits."""
    with open(path, "rb", buffering=0) as file:
        for mark in _MARKS:
            if os.pread(file.fileno(), len(mark.magic), offset + mark.offset) == mark.magic:
                return mark
    return None


class _Bit(NamedTuple):
    """A bit of a superblock: the byte that holds it, and its value there."""

    offset: int
    value: int


_EXACT: dict[str, _Bit | None] = {
    "ext4": _Bit(1024 + 0x62, 0x02),  # INCOMPAT_CASEFOLD, little-endian 0x20000
    "f2fs": _Bit(1024 + 0x885, 0x10),  # F2FS_FEATURE_CASEFOLD, 0x1000
    "xfs": _Bit(0x64, 0x40),  # XFS_SB_VERSION_BORGBIT (ascii-ci), big-endian 0x4000
    "btrfs": None, "squashfs": None, "erofs": None, "minix": None, "nilfs2": None, "romfs": None, "cramfs": None,
}  # fmt: skip
"""File systems to which two names that differ are two names, unless this bit is set."""


def names_are_exact(path: str, start: int, kind: str) -> bool:
    """Whether names that differ in case, or otherwise but in what some file system makes of them, are never one."""
    if kind not in _EXACT:
        return False
    bit = _EXACT[kind]
    if bit is None:
        return True
    with open(path, "rb", buffering=0) as file:
        byte = os.pread(file.fileno(), 1, start + bit.offset)
    return bool(byte) and not byte[0] & bit.value
