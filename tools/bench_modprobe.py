"""Time kobox's modprobe beside the installed kmod's: ``python -m tools.bench_modprobe [ROOT [RELEASE]]``.

Whole processes, in turns, best and median of several runs; then look-ups through the Python API. Without ROOT every
kernel image that was added is taken in turn. Its modules are linked and indexed elsewhere first. The goals stand in
the table; they are for an idle machine.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from kobox.depot.depmod import DepmodOptions, depmod
from kobox.depot.systems import open_system
from tools.bench_depot import copy_tree, sources

ROUNDS = 15
LOOKUPS = 100_000


def timed(action: Callable[[], object]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    action()
    return (time.perf_counter() - start) * 1000


def process(command: list[str]) -> Callable[[], object]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)


def compare(name: str, kobox: Callable[[], object], kmod: Callable[[], object], goal: str) -> None:
    kobox()  # the first run writes Python's own caches
    pairs = [(timed(kobox), timed(kmod)) for _ in range(ROUNDS)]
    ours, theirs = zip(*pairs, strict=True)
    shown = [f"{min(times):8.1f} {statistics.median(times):8.1f}" for times in (ours, theirs)]
    print(f"{name:<34} {shown[0]}   {shown[1]}   {goal}")


def concrete_names(directory: str, count: int) -> list[str]:
    """Names that random alias patterns of the tree match."""
    rng = random.Random(1)
    lines = Path(directory, "modules.alias").read_text().splitlines()
    patterns = [line.split()[1] for line in lines if line.startswith("alias ")]
    chosen = (rng.choice(patterns) for _ in range(count))
    plain = (re.sub(r"\[([^\]])[^\]]*\]", r"\1", pattern).replace("?", "7") for pattern in chosen)
    return ["".join(rng.choice(["", "0", "00AB"]) if char == "*" else char for char in name) for name in plain]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?", help="the root directory; else every added image's")
    parser.add_argument("release", nargs="?", help="the release, if there are several")
    args = parser.parse_args()
    for source, release in sources(args.root, args.release):
        with tempfile.TemporaryDirectory(prefix="kobox-bench-", dir=source.parent) as root:
            tree = Path(root) / "lib/modules" / release
            tree.mkdir(parents=True)
            copy_tree(source / "lib/modules" / release, tree, None)
            depmod(DepmodOptions(str(tree), release))
            measure(root, release)
    return 0


def measure(root: str, release: str) -> None:
    """All rows of one indexed root."""
    base = ["-d", root, "-S", release]
    kobox = [str(Path(sys.executable).with_name("kobox")), "modprobe", *base]
    kmod = ["modprobe", *base]
    print(f"{release:<34} {'kobox ms, best, median':>17}   {'kmod':>17}   goal")
    for name, words, goal in (
        ("modprobe --show-depends btrfs", ["--show-depends", "btrfs"], "60"),
        ("modprobe -R pci:…", ["-R", "pci:v00008086d00001533sv00sd00bc02sc00i00"], ""),
        ("modprobe -c", ["-c"], ""),
    ):
        compare(name, process([*kobox, *words]), process([*kmod, *words]), goal)
    print(f"{'python -c pass':<34} {timed(process([sys.executable, '-c', 'pass'])):8.1f}")
    system = open_system(root, release, "")
    resolver = system.resolver()
    names = concrete_names(system.tree.directory, LOOKUPS)
    print(f"{'indexes into memory':<34} {timed(system.tree.keep_in_memory):8.1f}")
    looked_up = timed(lambda: list(map(resolver.lookup, names)))
    print(f"{'100,000 alias look-ups, Python API':<34} {looked_up:8.1f}   goal 1000")


if __name__ == "__main__":
    raise SystemExit(main())
