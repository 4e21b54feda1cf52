"""Devices by name, for who has a text and wants a model: those of kobox, bare ones, and classes in files."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from kobox.devices.backing import FileBacking
from kobox.devices.bare import Bare, bare_usb, identity_of
from kobox.devices.e1000 import E1000
from kobox.devices.edu import Edu
from kobox.devices.nvme import Nvme
from kobox.devices.usb_device import UsbDevice
from kobox.devices.usb_keyboard import UsbKeyboard
from kobox.devices.usb_serial import UsbSerial
from kobox.devices.usb_storage import UsbStorage
from kobox.devices.virtio_block import VirtioBlock
from kobox.devices.virtio_console import VirtioConsole
from kobox.devices.virtio_net import VirtioNet
from kobox.devices.virtio_rng import VirtioRng
from kobox.errors import UsageError
from kobox.machine.pci_function import PciFunction

Model = PciFunction | UsbDevice
MODELS: dict[str, tuple[Callable[[], Model], str]] = {
    "e1000": (E1000, "a network card by Intel, with nobody at the other end"),
    "edu": (Edu, "QEMU's teaching device"),
    "usb-keyboard": (UsbKeyboard, "a keyboard at which nobody types"),
    "usb-serial": (UsbSerial, "a serial adapter, with nobody at the other end"),
    "virtio-console": (VirtioConsole, "a terminal"),
    "virtio-net": (VirtioNet, "a network card, with nobody at the other end"),
    "virtio-rng": (VirtioRng, "a source of random numbers"),
}
_DISKS: dict[str, Callable[[FileBacking], Model]] = {"disk:": VirtioBlock, "nvme:": Nvme, "stick:": UsbStorage}
"""Followed by the path of a file."""


def model_of(text: str) -> Model:
    """A new device: a name of ``MODELS``; ``disk:FILE`` (virtio), ``nvme:FILE`` or ``stick:FILE`` (USB);
    ``pci:VVVV:DDDD`` or a modalias, ``usb:VVVV:PPPP`` (see ``bare``); or ``FILE.py:Class``, whose class is called
    without arguments."""
    if text in MODELS:
        return MODELS[text][0]()
    for kind, make in _DISKS.items():
        if not text.startswith(kind):
            continue
        path = text.removeprefix(kind)
        try:
            return make(FileBacking(path))
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from error
    if text.startswith("pci:"):
        return Bare(identity_of(text))
    if text.startswith("usb:"):
        return bare_usb(text)
    path, colon, name = text.rpartition(":")
    if colon and path.endswith(".py"):
        return _from_file(Path(path), name)
    names = ", ".join(MODELS)
    raise UsageError(
        f"no device {text!r}",
        hint=f"{names}, disk:FILE, nvme:FILE, stick:FILE, pci:VVVV:DDDD, usb:VVVV:PPPP, or FILE.py:Class",
    )


def with_absolute_path(text: str) -> str:
    """The same device for a process in another directory."""
    for kind in _DISKS:
        if text.startswith(kind):
            return kind + str(Path(text.removeprefix(kind)).absolute())
    path, colon, name = text.rpartition(":")
    return f"{Path(path).absolute()}:{name}" if colon and path.endswith(".py") else text


def _from_file(path: Path, name: str) -> Model:
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(f"kobox_device_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code
        raise UsageError(f"{path}: {type(error).__name__}: {error}") from error
    kind = getattr(module, name, None)
    if not isinstance(kind, type) or not issubclass(kind, Model):
        classes = [key for key, value in vars(module).items() if _is_model(value, module.__name__)]
        raise UsageError(f"{path}: no device class {name!r}", hint=f"it has: {', '.join(classes) or 'none'}")
    make: Callable[[], Model] = kind
    try:
        return make()
    except Exception as error:
        raise UsageError(f"{path}: {name}(): {type(error).__name__}: {error}") from error


def _is_model(value: object, module: str) -> bool:
    return isinstance(value, type) and issubclass(value, Model) and value.__module__ == module
