"""CR0.WP: whether read-only pages bind the kernel. What hides in a kernel clears it, patches, and sets it again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import kobox
from kobox.box import Kernel
from kobox.kernel.tasks import TaskDied

_CLEAR = bytes.fromhex("0f20c0 4825fffffeff 0f22c0")  # mov rax, cr0; and rax, ~WP; mov cr0, rax
_STORE = bytes.fromhex("408837")  # mov [rdi], sil
_SET = bytes.fromhex("480d00000100 0f22c0 c3")  # or rax, WP; mov cr0, rax; ret
_RET = 0xC3


@pytest.fixture(scope="module")
def kernel(debian_root: Path) -> Iterator[Kernel]:
    with kobox.boot(debian_root) as booted:
        booted.mark_pristine()
        yield booted


@pytest.fixture
def poke(kernel: Kernel) -> int:
    """A fresh kernel with a function (address, byte) that stores with CR0.WP off, and sets it again."""
    kernel.reset()
    return kernel.guest.machine.area.code(_CLEAR + _STORE + _SET)


@pytest.fixture
def poke_protected(kernel: Kernel, poke: int) -> int:
    """The same without touching CR0."""
    return kernel.guest.machine.area.code(_STORE + bytes([_RET]))


@pytest.mark.image
def test_read_only_data_can_be_written_while_it_is_off(kernel: Kernel, poke: int) -> None:
    banner = kernel.guest.symbol("linux_banner")
    kernel.call(poke, banner, ord("Q"))
    assert kernel.guest.read(banner, 5) == b"Qinux"


@pytest.mark.image
def test_read_only_data_cannot_be_written_while_it_is_on(kernel: Kernel, poke: int, poke_protected: int) -> None:
    banner = kernel.guest.symbol("linux_banner")
    kernel.call(poke, banner, ord("Q"))
    with pytest.raises(TaskDied):
        kernel.call(poke_protected, banner + 1, ord("Q"))
    assert kernel.guest.read(banner, 5) == b"Qinux"


@pytest.mark.image
def test_a_reset_takes_back_code_that_was_patched_that_way(kernel: Kernel, poke: int) -> None:
    function = kernel.guest.symbol("hex_to_bin")
    assert kernel.guest.call_int(function, ord("7")) == 7
    for offset, byte in enumerate(bytes.fromhex("b82a000000c3")):  # mov eax, 42; ret
        kernel.call(poke, function + offset, byte)
    assert kernel.guest.call_int(function, ord("7")) == 42
    kernel.reset()
    assert kernel.guest.call_int(function, ord("7")) == 7


@pytest.mark.image
def test_code_patched_through_the_direct_map_is_taken_back_too(kernel: Kernel, poke_protected: int) -> None:
    guest = kernel.guest
    function = guest.symbol("hex_to_bin")
    physical = guest.machine.pages.physical(function)
    assert physical is not None
    alias = guest.machine.pages.linear_base + physical
    assert guest.call_int(function, ord("7")) == 7
    for offset, byte in enumerate(bytes.fromhex("b82a000000c3")):
        kernel.call(poke_protected, alias + offset, byte)
    assert guest.call_int(function, ord("7")) == 42
    kernel.reset()
    assert guest.call_int(function, ord("7")) == 7
