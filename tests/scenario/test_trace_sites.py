"""What kobox opens to ftrace by itself is what the kernel would have opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from kobox.box import Kernel
from kobox.kernel import trace_sites
from kobox.kernel.env import Call, Env
from kobox.kernel.guest import Guest, View
from kobox.link import LoadView, Symbols

pytestmark = pytest.mark.image

MODULES = ("ext4", "bonding", "kvm")
"""The last one has weak functions that were replaced: places that belong to no symbol."""


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
    linux: Kernel, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = flags_after(linux, name)
    with monkeypatch.context() as patch:
        patch.setattr(trace_sites, "enable_call", kernels_own)
        theirs = flags_after(linux, name)
    assert len(ours) > 100
    assert ours == theirs
    closed = linux.guest.image.btf.constant("FTRACE_FL_DISABLED")
    assert (closed in ours.values()) == (name == "kvm")


def test_while_somebody_traces_the_kernel_does_it_all(linux: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    own = trace_sites.enable_call

    def noted(guest: Guest, env: Env, module: View, *more: Any) -> Call:
        call = own(guest, env, module, *more)
        asked.append(call[1] - module.address)
        return call

    monkeypatch.setattr(trace_sites, "enable_call", noted)
    with linux.trace("vfs_*"):
        linux.modprobe("dummy")
    linux.modprobe("bonding")
    assert asked[0] == 0
    assert all(asked[1:]), "with the trace over, the kernel gets a module without memory again"
