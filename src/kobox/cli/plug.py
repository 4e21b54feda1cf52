"""``kobox plug``: plug devices into a kernel and show each hop from what a device says it is to its driver."""

from __future__ import annotations

import argparse
from typing import Any

from kobox.cli.sessions import kernel_of, print_json

EPILOG = """\
examples:
  kobox plug pci:8086:1533                    a bare device: which module comes, and what it says to registers of zeros
  kobox plug virtio-net virtio-rng
  kobox plug usb-keyboard stick:image.raw     on a USB host controller, which comes with the first of them
  kobox plug disk:image.raw                   the file itself, by virtio_blk, with its partitions
  kobox plug --module edu.ko edu              QEMU's teaching device, with a driver of one's own
  kobox plug my_device.py:Thermometer --json
  kobox plug --session first stick:image.raw  into a kernel that stays; --list and --unplug N go with it

DEVICE is e1000, edu, usb-keyboard, usb-serial, virtio-console, virtio-net, virtio-rng; disk:FILE (virtio), nvme:FILE,
stick:FILE (USB); pci:VENDOR:DEVICE[:SUBVENDOR:SUBDEVICE][:CLASS] or a modalias, usb:VENDOR:PRODUCT[:CLASS]
(hexadecimal); or FILE.py:CLASS, a class of one's own (docs/devices.md). Exit status 0: a driver took each device;
1: not.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("device", nargs="*", metavar="DEVICE", help="what to plug in, one after the other")
    parser.add_argument(
        "--module", action="append", default=[], metavar="FILE.ko", help="load this first; may be repeated"
    )
    parser.add_argument("--no-probe", action="store_true", help="load no module for it")
    parser.add_argument("--image", metavar="R", help="kernel: a release that was added, a root, or a vmlinuz")
    parser.add_argument("--root", metavar="DIR", help="system whose modules and configuration are used")
    parser.add_argument("--append", default="", metavar="TEXT", help="kernel command line")
    parser.add_argument("--session", metavar="SESSION", help="plug into this session's kernel instead of a fresh one")
    parser.add_argument("--list", action="store_true", help="what is plugged into the session")
    parser.add_argument("--unplug", type=int, metavar="N", help="take device N of the session away")
    parser.add_argument("--json", action="store_true", help="one record for each device")


def run(args: argparse.Namespace) -> int:
    """Plug, show."""
    from kobox.errors import UsageError

    if not args.device and args.unplug is None and not args.list:
        raise UsageError("no DEVICE to plug in", hint="kobox plug --help names some")
    if args.session is None and (args.list or args.unplug is not None):
        raise UsageError("a device is listed and unplugged where it stays", hint="--session NAME")
    shown = _in_fresh(args) if args.session is None else _in_session(args)
    if args.json:
        print_json(shown)
    else:
        print("\n".join(line for record in shown for line in _lines(record)), end="\n" if shown else "")
    return 0 if args.list or all(record["drivers"] for record in shown) else 1


def _in_fresh(args: argparse.Namespace) -> list[dict[str, Any]]:
    from kobox.box import Kernel, boot
    from kobox.cli.progress import Progress
    from kobox.devices.catalogue import model_of
    from kobox.devices.plug import as_data
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
            shown.append(as_data(text, plugged, [record.text for record in kernel.dmesg()[before:]]))
    return shown


def _in_session(args: argparse.Namespace) -> list[dict[str, Any]]:
    from kobox.devices.catalogue import with_absolute_path

    with kernel_of(args) as kernel:
        for file in args.module:
            kernel.insmod(file)
        if args.unplug is not None:
            kernel.unplug(args.unplug)
        plugged = [kernel.plug(with_absolute_path(text), not args.no_probe) for text in args.device]
        return kernel.devices if args.list else plugged


def _lines(record: dict[str, Any]) -> list[str]:
    number = f"{record['number']}: " if "number" in record else ""
    lines = [f"{number}{record['device']} at {record['address']}"]
    for hop in record["hops"]:
        modules = " ".join(hop["modules"]) or "no module is known for it"
        lines.append(f"  {hop['modalias']}")
        lines.append(f"    -> {modules}" + (f" (loaded: {' '.join(hop['loaded'])})" if hop["loaded"] else ""))
        lines.append(f"    -> {hop['driver'] or 'no driver took it'}")
        lines += [f"       {said}" for said in hop["said"]]
    lines += [f"  {node}" for node in record["nodes"]]
    return [*lines, *(f"  | {text}" for text in record["log"])]
