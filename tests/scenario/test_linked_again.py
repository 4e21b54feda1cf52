"""A module that is loaded again in the same state is taken as it was linked: to the guest it is the same module."""

from __future__ import annotations

from errno import ENOENT

import pytest

from kobox.box import Kernel
from kobox.errors import Errno
from kobox.kernel.linked_images import LinkedImages

pytestmark = pytest.mark.image

SECTIONS = (".text", ".rodata", ".orc_unwind_ip", ".orc_unwind", ".return_sites", "__ksymtab_gpl", ".data")


@pytest.fixture
def hits(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each look for an image that is known had one."""
    found: list[bool] = []
    own = LinkedImages.find

    def find(self: LinkedImages, key: object) -> object:
        image = own(self, key)  # type: ignore[arg-type]  # the loader's key
        found.append(image is not None)
        return image

    monkeypatch.setattr(LinkedImages, "find", find)
    return found


def contents(kernel: Kernel, name: str) -> dict[str, bytes]:
    """A loaded module's sections as they lie in guest memory, up to the next one or the end of their page."""
    sections = kernel.module(name).sections
    ends = sorted(sections.values())
    found = {}
    for section in SECTIONS:
        if section in sections:
            start = sections[section]
            following = next((end for end in ends if end > start), (start | 0xFFF) + 1)
            found[section] = read_mapped(kernel, start, min(following, start + (1 << 16)))
    return found


def read_mapped(kernel: Kernel, start: int, end: int) -> bytes:
    """What lies there, up to the first page that is not mapped: the next section may be in another region."""
    read = b""
    while start < end and kernel.guest.mapped(start):
        following = min((start | 0xFFF) + 1, end)
        read += kernel.guest.read(start, following - start)
        start = following
    assert read
    return read


def load_once(kernel: Kernel, name: str, **parameters: object) -> None:
    """Load it, and go back to where it was not there."""
    kernel.modprobe(name, **parameters)
    kernel.reset()


@pytest.mark.parametrize("name", ["jbd2", "bonding", "kvm"])
def test_a_load_in_the_same_state_gives_the_same_bytes(linux: Kernel, name: str, hits: list[bool]) -> None:
    load_once(linux, name)
    linux.modules_room.loader._linked = LinkedImages()
    hits.clear()
    linux.modprobe(name)
    assert not any(hits)
    first, where = contents(linux, name), linux.module(name).sections
    linux.reset()
    hits.clear()
    linux.modprobe(name)
    assert all(hits)
    assert linux.module(name).sections == where
    assert contents(linux, name) == first
    assert ".text" in first


def test_a_load_to_another_place_is_linked_anew(linux: Kernel, hits: list[bool]) -> None:
    load_once(linux, "bonding")
    linux.modprobe("dummy")
    hits.clear()
    linux.modprobe("bonding")
    assert not hits[-1]
    assert linux.module("bonding").state == "live"


def test_parameters_and_references_are_those_of_the_present_load(linux: Kernel) -> None:
    load_once(linux, "bonding", max_bonds=1)
    linux.modprobe("bonding", max_bonds=2)
    assert {"bond0", "bond1"} <= {link.name for link in linux.net.links()}
    assert "bonding" in linux.module("tls").holders


def test_it_unloads_as_any_other(linux: Kernel, hits: list[bool]) -> None:
    load_once(linux, "dummy")
    hits.clear()
    linux.modprobe("dummy")
    assert hits == [True]
    linux.rmmod("dummy")
    with pytest.raises(Errno) as refused:
        linux.rmmod("dummy")
    assert refused.value.number == ENOENT
