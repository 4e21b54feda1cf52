"""What is read from the kernel's file is what the same kernel says of itself once it runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kobox.box import Kernel, boot
from kobox.image import Image

pytestmark = pytest.mark.image


@pytest.fixture(scope="module")
def kernel(debian_root: Path) -> Iterator[Kernel]:
    with boot(debian_root) as booted:
        yield booted


def test_symbols_are_those_of_its_own_kallsyms(kernel: Kernel, debian_image: Image) -> None:
    printed = kernel.read("/proc/kallsyms").decode().splitlines()
    own = [f"{symbol.address:016x} {symbol.type} {symbol.name}" for symbol in debian_image.symbols.records()]
    assert [line for line in printed if "\t" not in line] == own


def test_the_banner_is_its_own_version(kernel: Kernel, debian_image: Image) -> None:
    assert kernel.read("/proc/version").decode() == f"{debian_image.banner}\n"


def test_types_are_those_it_offers_in_sysfs(kernel: Kernel, debian_image: Image) -> None:
    assert kernel.read("/sys/kernel/btf/vmlinux") == debian_image.between("__start_BTF", "__stop_BTF")


def test_notes_are_those_it_offers_in_sysfs(kernel: Kernel, debian_image: Image) -> None:
    notes = kernel.read("/sys/kernel/notes")
    assert notes == debian_image.section(".notes")
    assert bytes.fromhex(debian_image.build_id) in notes
