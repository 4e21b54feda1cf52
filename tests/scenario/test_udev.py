"""Devices bring their modules: the kernel's uevents reach a small udev."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import kobox
import kobox.box
import kobox.image
from kobox.box import Kernel
from kobox.kernel.udev import parse

pytestmark = pytest.mark.image


@pytest.fixture(scope="module", params=["debian_root", "trixie_root"])
def listening(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    root: Path = request.getfixturevalue(request.param)
    with kobox.boot(root) as kernel:
        kernel.udev.start()
        kernel.checkpoint()
        yield kernel


@pytest.fixture
def kernel(listening: Kernel) -> Kernel:
    listening.reset()
    return listening


def loaded(kernel: Kernel) -> set[str]:
    return {module.name for module in kernel.modules}


def test_coldplug_loads_the_modules_of_the_boards_devices_and_of_what_they_bring(kernel: Kernel) -> None:
    """The speaker of the board has an alias; its driver makes an input device, which has one, too."""
    kernel.coldplug()
    assert {"pcspkr", "evdev"} <= loaded(kernel)
    speaker, events = (
        next(request for request in kernel.autoloaded if request.modules == (name,)) for name in ("pcspkr", "evdev")
    )
    assert speaker.name == "platform:pcspkr"
    assert speaker.asked_by == "udev"
    assert events.function.startswith("/devices/platform/pcspkr/input/input")


def test_a_device_that_comes_later_gets_its_driver(kernel: Kernel) -> None:
    kernel.modprobe("pcspkr")
    kernel.udev.settle()
    assert {"pcspkr", "evdev"} <= loaded(kernel)
    kernel.modprobe("dummy_hcd")
    kernel.udev.settle()
    (hub,) = (request for request in kernel.autoloaded if request.name.startswith("usb:v1D6B"))
    assert hub.status == 0


def test_after_a_reset_it_listens_as_before(kernel: Kernel) -> None:
    for _ in range(2):
        kernel.coldplug()
        assert "evdev" in loaded(kernel)
        kernel.reset()
        assert kernel.autoloaded == []


def test_in_a_saved_kernel_it_goes_on(kernel: Kernel, debian_root: Path, trixie_root: Path, tmp_path: Path) -> None:
    kernel.save(tmp_path)
    roots = {kobox.image.open_image(root).release: root for root in (debian_root, trixie_root)}
    with kobox.box.resume(tmp_path, roots[kernel.release]) as again:
        again.write("/sys/devices/platform/pcspkr/uevent", "add")
        again.udev.settle()
        assert {"pcspkr", "evdev"} <= loaded(again)


def test_without_udev_devices_bring_nothing(kernel: Kernel, debian_root: Path) -> None:
    with kobox.boot(debian_root) as plain:
        plain.write("/sys/devices/platform/pcspkr/uevent", "add")
        plain.sleep(0.1)
        assert plain.modules == []


def test_the_variables_of_an_event_are_told_from_its_first_line() -> None:
    message = b"add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0MODALIAS=a=b\0odd\0"
    assert parse(message) == {"ACTION": "add", "DEVPATH": "/devices/x", "MODALIAS": "a=b"}


def test_a_udev_whose_task_died_can_be_started_anew(kernel: Kernel) -> None:
    guest = kernel.guest
    guest.call("send_sig", 9, guest.tasks.state.listener, 1)
    kernel.sleep(0.1)
    assert guest.tasks.state.listener == 0
    kernel.coldplug()
    assert {"pcspkr", "evdev"} <= loaded(kernel)
