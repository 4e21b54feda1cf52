"""Plug a device into a running kernel, the way a kernel without hot-plug slots is told: by a rescan of its bus.

What follows is the kernel's own: it finds the function, gives it addresses, and announces it. The part of udev is
played here, for that device and the devices that its driver makes: ``modalias`` → ``modules.alias`` → modprobe → probe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from errno import ENOENT
from typing import Any

from kobox.devices.uevents import Uevents
from kobox.devices.usb_device import UsbDevice
from kobox.devices.xhci import Xhci
from kobox.errors import Errno, UsageError
from kobox.kernel.files import Files
from kobox.kernel.syscalls import Syscalls
from kobox.machine.pci_bus import PciBus
from kobox.machine.pci_function import PciFunction

_DEVICES, _RESCAN = "/sys/bus/pci/devices", "/sys/bus/pci/rescan"
_SETTLE_NS = 100_000_000
_USB_SETTLES = 15
"""A USB device is announced some 0.3 s after its plug; a stick's driver waits for a second before it looks at it."""
"""Virtual time in which a driver may go on with its probe beside the one who has loaded it."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One device on the way: its path below /sys/devices, what it says it is, the modules that its alias stands for and
    those of them that were loaded now (with what they need), and the driver that took it (empty: none)."""

    device: str
    modalias: str
    modules: tuple[str, ...]
    loaded: tuple[str, ...]
    driver: str
    said: tuple[str, ...] = ()
    """Why a module was not loaded."""


@dataclass(frozen=True, slots=True)
class Plugged:
    """A device that the kernel knows. ``address``: as lspci shows it; of a USB device, its port."""

    model: PciFunction | UsbDevice
    address: str
    hops: tuple[Hop, ...]
    nodes: tuple[str, ...]
    """Device files that came with it: ``/dev/vda``."""

    @property
    def drivers(self) -> tuple[str, ...]:
        """The drivers that took the device and what is below it."""
        return tuple(hop.driver for hop in self.hops if hop.driver)

    @property
    def folder(self) -> str:
        """Its directory in sysfs."""
        return f"{_DEVICES}/{self.address}"


def as_data(text: str, plugged: Plugged, log: list[str]) -> dict[str, Any]:
    """What became of a device that was asked for by a text, as JSON has it (see the schema of ``kobox plug``)."""
    return {
        "device": text,
        "address": plugged.address,
        "hops": [asdict(hop) for hop in plugged.hops],
        "drivers": list(plugged.drivers),
        "nodes": list(plugged.nodes),
        "log": log,
    }


LoadAlias = Callable[[str], tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]]
"""An alias to (modules that it stands for, modules that were loaded, complaints)."""


class Plugger:
    """The hand that plugs devices into one kernel."""

    def __init__(self, bus: PciBus, files: Files, syscalls: Syscalls, load: LoadAlias) -> None:
        self._bus, self._files, self._load = bus, files, load
        self._events = Uevents(syscalls)
        self._tasks = syscalls.guest.tasks

    def plug(self, model: PciFunction | UsbDevice, *, probe: bool = True) -> Plugged:
        """Insert a device in the first free slot or port, and let the kernel find it. Not ``probe``: no module is
        loaded. Where there is no USB host controller yet, one is plugged in."""
        return self._plug_usb(model, probe) if isinstance(model, UsbDevice) else self._plug_pci(model, probe)

    def _plug_pci(self, model: PciFunction, probe: bool) -> Plugged:
        if model.board is not None:
            raise UsageError("this device is plugged in already", hint="make another one of its class")
        try:
            slot = self._bus.free_slot()
        except ValueError as error:
            raise UsageError(str(error), hint="unplug one") from error
        self._bus.insert(model, slot)
        address = self._bus.name_of(model)
        with self._events:
            self._files.write(_RESCAN, b"1")
            hops, nodes = self._follow(probe)
        if not hops:
            self._bus.remove(model)
            raise UsageError(f"the kernel has not found a PCI device at {address}", hint="is it booted with pci=off?")
        return Plugged(model, address, tuple(hops), tuple(nodes))

    def _plug_usb(self, model: UsbDevice, probe: bool) -> Plugged:
        if model.host is not None:
            raise UsageError("this device is plugged in already", hint="make another one of its class")
        hosts = [host for host in self._bus.plugged() if isinstance(host, Xhci)]
        host = hosts[0] if hosts else Xhci()
        if not hosts:
            self._plug_pci(host, True)
        with self._events:
            port = host.attach(model)
            hops, nodes = self._follow(probe, _USB_SETTLES)
        return Plugged(model, f"usb port {port} of {self._bus.name_of(host)}", tuple(hops), tuple(nodes))

    def _unplug_usb(self, model: UsbDevice) -> None:
        for host in self._bus.plugged():
            if isinstance(host, Xhci) and model in host.ports:
                host.detach(model)
                self._tasks.sleep(_SETTLE_NS * _USB_SETTLES)
                return
        raise UsageError("this device is not plugged in")

    def unplug(self, device: Plugged, *, surprise: bool = False) -> None:
        """Let the kernel give a device up and take it away; ``surprise``: it is gone before the kernel is told."""
        if isinstance(device.model, UsbDevice):
            self._unplug_usb(device.model)
            return
        if device.model.board is None and not surprise:
            raise UsageError(f"{device.address} is not plugged in")
        if surprise and device.model.board is not None:
            self._bus.remove(device.model)
        try:
            self._files.write(f"{device.folder}/remove", b"1")
        except Errno as error:
            if error.number == ENOENT:
                raise UsageError(f"the kernel knows no device at {device.address}") from error
            raise
        self._tasks.sleep(_SETTLE_NS)
        if device.model.board is not None:
            self._bus.remove(device.model)

    def _follow(self, probe: bool, patience: int = 1) -> tuple[list[Hop], list[str]]:
        """What the kernel announces, and what comes of it, until it says no more."""
        hops: list[Hop] = []
        nodes: list[str] = []
        while events := self._events.heard() or self._heard_later(patience):
            for event in events:
                if event.get("ACTION") != "add":
                    continue
                if "DEVNAME" in event:
                    nodes.append("/dev/" + event["DEVNAME"].removeprefix("/dev/"))
                if "MODALIAS" in event:
                    hops.append(self._probe(event["DEVPATH"], event["MODALIAS"], probe))
        return hops, nodes

    def _heard_later(self, patience: int) -> list[dict[str, str]]:
        """What a driver does after its probe: many leave the rest to a worker, and a hub lets a contact bounce."""
        for _ in range(patience):
            self._tasks.sleep(_SETTLE_NS)
            if events := self._events.heard():
                return events
        return []

    def _probe(self, path: str, alias: str, probe: bool) -> Hop:
        modules, loaded, said = self._load(alias) if probe else ((), (), ())
        return Hop(path.removeprefix("/devices/"), alias, modules, loaded, self._driver(path), said)

    def _driver(self, path: str) -> str:
        try:
            return self._files.readlink(f"/sys{path}/driver").rpartition("/")[2]
        except Errno as error:
            if error.number != ENOENT:
                raise
            return ""
