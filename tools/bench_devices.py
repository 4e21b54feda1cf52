"""Figures of devices that are Python classes: ``make bench``.

    python -m tools.bench_devices [--image R|ROOT] [--only WORD] [--json]

As ``tools.bench``: each row is a median in the unit shown, with its budget. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

from kobox.box import Kernel, boot
from kobox.devices.backing import MemoryBacking
from kobox.devices.edu import Edu
from kobox.devices.nvme import Nvme
from kobox.devices.usb_device import UsbDevice
from kobox.devices.usb_storage import UsbStorage
from kobox.devices.virtio_block import VirtioBlock
from kobox.devices.virtio_net import VirtioNet
from kobox.errors import Errno
from kobox.image import list_images
from kobox.machine.pci_config import BAR_0
from kobox.machine.pci_function import PciFunction
from kobox.net.sockets import AF_PACKET, SOCK_RAW
from tools.bench import EXAMPLES, Row

_ACCESSES, _INTERRUPTS, _FRAMES = 50_000, 5_000, 500
_ROUNDS = 3
_DISK = 64 << 20
_CHUNK = 4 << 20
_ALL_KINDS = 0x0003


@contextmanager
def kernel_of(image: str) -> Iterator[Kernel]:
    """A kernel that can be reset."""
    with boot(image) as kernel:
        kernel.mark_pristine()
        yield kernel


def accesses(image: str) -> Row:
    """The kernel's own loop reads one register of a model."""
    with kernel_of(image) as kernel:
        edu = Edu()
        kernel.plug(edu)
        kernel.write("/sys/bus/pci/devices/0000:00:01.0/enable", b"1")
        place = kernel.call("ioremap", edu.config.get(BAR_0, 4) & -16, 4096)
        buffer = kernel.call(kernel.guest.first_symbol("vmalloc", "vmalloc_noprof"), 4 * _ACCESSES)
        rates = []
        for _ in range(_ROUNDS):
            start = time.perf_counter()
            kernel.call("ioread32_rep", place + 4, buffer, _ACCESSES)
            rates.append(_ACCESSES / (time.perf_counter() - start))
    return Row("reads of a declared register by the kernel", statistics.median(rates), "1/s", 100_000, "more")


class _Storm(Edu):
    """Interrupts again each time that the driver has acknowledged one, so many times."""

    left = 0

    def lower_irq(self) -> None:
        super().lower_irq()
        if self.left:
            self.left -= 1
            self.interrupt_status = 1
            self.raise_irq()


def interrupts(image: str) -> Row | None:
    """Each is delivered, the driver's handler reads why and acknowledges."""
    with kernel_of(image) as kernel:
        try:
            kernel.insmod(EXAMPLES / "edu.ko")
        except Errno as error:
            print(f"interrupts: not measured, the examples are built for another kernel ({error})", file=sys.stderr)
            return None
        storm = _Storm()
        kernel.plug(storm)
        rates = []
        for _ in range(_ROUNDS):
            storm.left, storm.interrupt_status = _INTERRUPTS, 1
            start = time.perf_counter()
            storm.raise_irq()
            while storm.left:
                kernel.sleep(0.001)
            rates.append(_INTERRUPTS / (time.perf_counter() - start))
    return Row("interrupts with a driver's handler", statistics.median(rates), "1/s", 5_000, "more")


def plugging(image: str) -> Row:
    """From the slot to the block device, with the driver's modules loaded."""
    with kernel_of(image) as kernel:
        kernel.modprobe("virtio_pci")
        kernel.modprobe("virtio_blk")
        kernel.push()
        times = []
        for _ in range(9):
            kernel.reset()
            start = time.perf_counter()
            kernel.attach_disk(bytes(1 << 20), live=True)
            times.append((time.perf_counter() - start) * 1000)
    return Row("plug → probe done → /dev/vda", statistics.median(times), "ms", 100)


def plugging_first(image: str) -> Row:
    """The same with the modules to load."""
    with kernel_of(image) as kernel:
        times = []
        for _ in range(5):
            kernel.reset()
            start = time.perf_counter()
            kernel.attach_disk(bytes(1 << 20), live=True)
            times.append((time.perf_counter() - start) * 1000)
    return Row("plug → modprobe → probe done → /dev/vda", statistics.median(times), "ms", 300)


def _read_disk(
    image: str, model: Callable[[MemoryBacking], PciFunction | UsbDevice], node: str, name: str, budget: float = 60
) -> Row:
    with kernel_of(image) as kernel:
        kernel.plug(model(MemoryBacking(os.urandom(_DISK))))
        kernel.push()
        rates = []
        for _ in range(_ROUNDS):
            kernel.reset()
            descriptor = kernel.files.open(node)
            start = time.perf_counter()
            while kernel.files.read_from(descriptor, _CHUNK):
                pass
            rates.append(_DISK / 1e6 / (time.perf_counter() - start))
    return Row(name, statistics.median(rates), "MB/s", budget, "more")


def virtio_block(image: str) -> Row:
    """Sequential, through the page cache, which is empty at first."""
    return _read_disk(image, VirtioBlock, "/dev/vda", "a live disk read through the block layer (virtio_blk)")


def nvme(image: str) -> Row:
    """As ``virtio_block``."""
    return _read_disk(image, Nvme, "/dev/nvme0n1", "a live disk read through the block layer (nvme)")


def stick(image: str) -> Row:
    """As ``virtio_block``; a stick's driver asks for 120 KiB at a time."""
    return _read_disk(image, UsbStorage, "/dev/sda", "a USB stick read through the block layer (usb-storage)", 10)


def packets(image: str) -> Row:
    """A frame goes out through the card, the model sends it back, the guest hears it."""
    with kernel_of(image) as kernel:
        card = VirtioNet(wire=lambda frame: card.receive(frame))
        kernel.plug(card)
        (name,) = (link.name for link in kernel.net.links() if link.address == card.mac.hex(":"))
        kernel.net.set_link(name, up=True)
        kernel.sleep(1)
        frame = b"\xff" * 6 + card.mac + b"\x88\xb5" + bytes(1000)
        rates = []
        with kernel.net.socket(AF_PACKET, SOCK_RAW, 0xB588) as socket:
            socket.bind((kernel.net.link(name).ifindex, 0x88B5))
            socket.settimeout(1)
            for _ in range(_ROUNDS):
                start = time.perf_counter()
                for _ in range(_FRAMES):
                    socket.send(frame)
                    socket.recv()
                rates.append(2 * _FRAMES / (time.perf_counter() - start))
    return Row("frames of 1 KB, each out and in again (virtio_net)", statistics.median(rates), "1/s", 1_000, "more")


ROWS: dict[str, Callable[[str], Row | None]] = {
    "accesses": accesses,
    "interrupts": interrupts,
    "plug": plugging,
    "first": plugging_first,
    "virtio": virtio_block,
    "nvme": nvme,
    "stick": stick,
    "packets": packets,
}


def main() -> int:
    """Print the rows that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", help="a release that was added, or a root (default: the newest)")
    parser.add_argument("--only", default="", help="rows whose name has this word")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    images = list_images()
    image = args.image or (images[-1].release if images else None)
    if image is None:
        print("no image: kobox kernel add --debian")
        return 1
    measured = [row(image) for name, row in ROWS.items() if args.only in name]
    rows = [row for row in measured if row is not None]
    if args.json:
        print(json.dumps([asdict(row) | {"ratio": row.ratio} for row in rows], indent=2))
        return 0
    for row in rows:
        print(f"{row.name:<72} {row.value:9.2f} {row.unit:<5} budget {row.budget:8.2f}  ratio {row.ratio:5.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
