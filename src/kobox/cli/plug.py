"""``kobox plug``: plug devices into a fresh kernel and show each hop from what a device says it is to its driver."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from kobox.cli.sessions import print_json

if TYPE_CHECKING:
    from kobox.devices.plug import Plugged
    from kobox.kernel.log import LogRecord

EPILOG = """\
examples:
  kobox plug pci:8086:1533                    a bare device: which module comes, and what it says to registers of zeros
  kobox plug virtio-net virtio-rng
  kobox plug usb-keyboard stick:image.raw     on a USB host controller, which comes with the first of them
  kobox plug disk:image.raw                   the file itself, by virtio_blk, with its partitions
  kobox plug --module edu.ko edu              QEMU's teaching device, with a driver of one's own
  kobox plug my_device.py:Thermometer --json

DEVICE is e1000, edu, usb-keyboard, usb-serial, virtio-console, virtio-net, virtio-rng; disk:FILE (virtio), nvme:FILE,
stick:FILE (USB); pci:VENDOR:DEVICE[:SUBVENDOR:SUBDEVICE][:CLASS] or a modalias, usb:VENDOR:PRODUCT[:CLASS]
(hexadecimal); or FILE.py:CLASS, a class of one's own (docs/devices.md). Exit status 0: a driver took each device;
1: not.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("device", nargs="+", metavar="DEVICE", help="what to plug in, one after the other")
    parser.add_argument(
        "--module", action="append", default=[], metavar="FILE.ko", help="load this first; may be repeated"
    )
    parser.add_argument("--no-probe", action="store_true", help="load no module for it")
    parser.add_argument("--image", metavar="R", help="kernel: a release that was added, a root, or a vmlinuz")
    parser.add_argument("--root", metavar="DIR", help="system whose modules and configuration are used")
    parser.add_argument("--append", default="", metavar="TEXT", help="kernel command line")
    parser.add_argument("--json", action="store_true", help="one record for each device")


def run(args: argparse.Namespace) -> int:
    """Boot, plug, show."""
    from kobox.box import Kernel, boot
    from kobox.cli.progress import Progress
    from kobox.devices.catalogue import model_of
    from kobox.errors import UsageError

    models = [model_of(text) for text in args.device]
    with Progress() as progress:
        kernel = boot(args.image, append=args.append, root=args.root, progress=progress)
    shown = []
    with kernel:
        if not isinstance(kernel, Kernel):
            raise UsageError("the bare kernel has no PCI bus", hint="kobox kernel add --debian")
        for file in args.module:
            kernel.insmod(file)
        for text, model in zip(args.device, models, strict=True):
            before = len(kernel.dmesg())
            plugged = kernel.plug(model, probe=not args.no_probe)
            shown.append(_record(text, plugged, kernel.dmesg()[before:]))
    if args.json:
        print_json(shown)
    else:
        print("\n".join(line for record in shown for line in _lines(record)))
    return 0 if all(record["drivers"] for record in shown) else 1


def _record(text: str, plugged: Plugged, log: list[LogRecord]) -> dict[str, Any]:
    return {
        "device": text,
        "address": plugged.address,
        "hops": [dataclasses.asdict(hop) for hop in plugged.hops],
        "drivers": plugged.drivers,
        "nodes": plugged.nodes,
        "log": [record.text for record in log],
    }


def _lines(record: dict[str, Any]) -> list[str]:
    lines = [f"{record['device']} at {record['address']}"]
    for hop in record["hops"]:
        modules = " ".join(hop["modules"]) or "no module is known for it"
        lines.append(f"  {hop['modalias']}")
        lines.append(f"    -> {modules}" + (f" (loaded: {' '.join(hop['loaded'])})" if hop["loaded"] else ""))
        lines.append(f"    -> {hop['driver'] or 'no driver took it'}")
        lines += [f"       {said}" for said in hop["said"]]
    lines += [f"  {node}" for node in record["nodes"]]
    return [*lines, *(f"  | {text}" for text in record["log"])]
