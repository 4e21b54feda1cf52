"""What kobox opens to ftrace by itself is what the kernel would have opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import kobox
from kobox.box import Kernel
from kobox.kernel import trace_sites
from kobox.kernel.env import Call, Env
from kobox.kernel.guest import Guest, View
from kobox.link import LoadView, Symbols

pytestmark = pytest.mark.image

MODULES = ("ext4", "bonding", "kvm")
"""The last one has weak functions that were replaced: places that belong to no symbol."""


@pytest.fixture(scope="module", params=["debian_root", "trixie_root"])
def traceable(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    root: Path = request.getfixturevalue(request.param)
    with kobox.boot(root) as kernel:
        kernel.mark_pristine()
        yield kernel


def kernels_own(
    guest: Guest, env: Env, module: View, regions: Sequence[tuple[int, int]], view: LoadView, symbols: Symbols
) -> Call:
    return (guest.symbol("ftrace_module_enable"), module.address)


def flags_after(kernel: Kernel, name: str) -> dict[int, int]:
    """The flags of each place outside the kernel's own text, by address, with the module loaded in a fresh state."""
    kernel.reset()
    kernel.modprobe(name)
    found = {}
    guest = kernel.guest
    for first, count in trace_sites._records(guest):
        for number in range(count):
            record = guest.view("dyn_ftrace", first + number * guest.layouts.size("dyn_ftrace"))
            if number == 0 and guest.in_kernel_text(record["ip"]):
                break
            found[record["ip"]] = record["flags"]
    return found


@pytest.mark.parametrize("name", MODULES)
def test_a_modules_places_are_those_that_the_kernel_opens(
    traceable: Kernel, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = flags_after(traceable, name)
    with monkeypatch.context() as patch:
        patch.setattr(trace_sites, "enable_call", kernels_own)
        theirs = flags_after(traceable, name)
    assert len(ours) > 100
    assert ours == theirs
    closed = traceable.guest.image.btf.constant("FTRACE_FL_DISABLED")
    assert (closed in ours.values()) == (name == "kvm")


def test_while_somebody_traces_the_kernel_does_it_all(traceable: Kernel) -> None:
    traceable.reset()
    with traceable.trace("ext4_*") as trace:
        traceable.modprobe("ext4")
    del trace
    assert traceable.module("ext4").loaded
