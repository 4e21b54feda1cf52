"""Plug a bare device in for each of N aliases that a kernel's modules.alias has, each in a fresh state: does the module
that kmod chooses come, does its probe end gracefully?

    python -m tools.plug_aliases --image RELEASE [--count 500] [--seed 1] [--answer 0]

``--answer ones`` is a device whose registers all read as ones. A line for each device that ended in a report of the
kernel, in no answer, or with other modules than ``modprobe -R`` of the host's kmod names; then a summary. Exit status 1
if there was any.
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

_ONES = 0xFFFF_FFFF_FFFF_FFFF


def aliases(folder: Path) -> list[str]:
    """Every PCI alias of the tree's modules, in order."""
    lines = (folder / "modules.alias").read_text().splitlines()
    return sorted({line.split()[1] for line in lines if line.startswith("alias pci:")})


def plug(kernel: Kernel, pattern: str, answer: int) -> tuple[str, tuple[str, ...], str]:
    """(the device's own modalias, modules that kobox chose, what went wrong)."""
    kernel.reset()
    modalias, modules, wrong = "", (), ""
    try:
        plugged = kernel.plug(Bare(identity_of(pattern), answer))
        modalias, modules = plugged.hops[0].modalias, plugged.hops[0].modules
    except KoboxError as error:
        wrong = f"{type(error).__name__}: {error}"
    texts = [record.text for record in kernel.dmesg()]
    bad = [text for text in texts if text.startswith(("BUG:", "WARNING:", "Oops", "general protection", "kernel BUG"))]
    return modalias, modules, wrong or "; ".join(bad)


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
        folder = kernel.modules_folder
        if folder is None:
            print("this image has no modules", file=sys.stderr)
            return 2
        known = aliases(folder)
        sample = random.Random(args.seed).sample(known, min(args.count, len(known)))
        started = time.monotonic()
        for pattern in sample:
            modalias, modules, wrong = plug(kernel, pattern, _ONES if args.answer == "ones" else 0)
            wanted = by_kmod(folder, modalias) if modalias else modules
            if sorted(wanted) != sorted(modules):
                wrong = f"kmod chooses {wanted}, kobox {modules}; {wrong}"
            counts["wrong" if wrong else "graceful"] += 1
            if wrong:
                print(f"{pattern}: {', '.join(modules)}: {wrong}", flush=True)
        seconds = time.monotonic() - started
    print(f"{len(sample)} of {len(known)} aliases, {seconds:.1f} s: {dict(counts)}")
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
