"""Plug a bare device in for each of N aliases that a kernel's modules.alias has, each in a fresh state: does the module
that kmod chooses come, and how does its probe end?

    python -m tools.plug_aliases --image RELEASE [--count 500] [--seed 1] [--answer zeros]

``--answer ones`` is a device whose registers all read as ones. A line for each device whose driver ended in a report
of the kernel (a bug of the driver: no such device exists) or in no answer, or where other modules came than
``modprobe -R`` of the host's kmod names; then a summary. Exit status 1 for other modules or an error of kobox.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from kobox.box import Kernel, boot
from kobox.devices.bare import Bare, identity_of
from kobox.errors import KoboxError
from kobox.kernel.tasks import JobTimeout

GRACEFUL, REPORT, NO_ANSWER, OTHER, ERROR = "graceful", "reported", "no answer", "other modules", "error"
_REPORTS = ("BUG:", "WARNING:", "Oops", "general protection", "kernel BUG", "divide error")
_PATIENCE = 20.0
"""Virtual seconds that a probe may take: some wait for firmware of a device for a minute."""
_ONES = 0xFFFF_FFFF_FFFF_FFFF


def aliases(folder: Path) -> list[str]:
    """Every PCI alias of the tree's modules, in order."""
    lines = (folder / "modules.alias").read_text().splitlines()
    return sorted({line.split()[1] for line in lines if line.startswith("alias pci:")})


def plug(kernel: Kernel, pattern: str, answer: int) -> tuple[str, tuple[str, ...], str, str]:
    """(the device's own modalias, modules that kobox chose, how it ended, its text)."""
    kernel.reset()
    modalias, modules, ended, text = "", (), GRACEFUL, ""
    try:
        plugged = kernel.plug(Bare(identity_of(pattern), answer))
        modalias, modules = plugged.hops[0].modalias, plugged.hops[0].modules
    except JobTimeout as error:
        ended, text = NO_ANSWER, str(error)
    except KoboxError as error:
        ended, text = ERROR, f"{type(error).__name__}: {error}"
    texts = [record.text for record in kernel.dmesg()]
    bad = [line for line in texts if line.startswith(_REPORTS)]
    return (modalias, modules, REPORT, bad[0]) if bad and ended == GRACEFUL else (modalias, modules, ended, text)


def by_kmod(folder: Path, modalias: str) -> tuple[str, ...]:
    """What the host's kmod names for a modalias, on the same tree."""
    root = folder.parents[2]
    words = ["modprobe", "-d", str(root), "-S", folder.name, "-R", "-b", modalias]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return tuple(done.stdout.split())


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--answer", choices=["zeros", "ones"], default="zeros")
    args = parser.parse_args()
    counts: Counter[str] = Counter()
    with boot(args.image) as kernel:
        kernel.mark_pristine()
        kernel.set_timeout(_PATIENCE)
        folder = kernel.modules_folder
        if folder is None:
            print("this image has no modules", file=sys.stderr)
            return 2
        known = aliases(folder)
        sample = random.Random(args.seed).sample(known, min(args.count, len(known)))
        started = time.monotonic()
        for pattern in sample:
            modalias, modules, ended, text = plug(kernel, pattern, _ONES if args.answer == "ones" else 0)
            wanted = by_kmod(folder, modalias) if modalias else modules
            if sorted(wanted) != sorted(modules):
                ended, text = OTHER, f"kmod chooses {' '.join(wanted)}"
            counts[ended] += 1
            if ended != GRACEFUL:
                print(f"{ended}: {pattern}: {' '.join(modules)}: {text}", flush=True)
        seconds = time.monotonic() - started
    print(f"{len(sample)} of {len(known)} aliases, {seconds:.1f} s: {dict(counts)}")
    return 1 if counts[OTHER] or counts[ERROR] else 0


if __name__ == "__main__":
    raise SystemExit(main())
