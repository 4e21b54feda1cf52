"""Time depmod and modinfo in pairs with the installed kmod, on a root with a distribution's modules.

    python -m tools.bench_depot [ROOT [RELEASE]] [--rounds 5] [--compressed xz|zst]

Without ROOT every kernel image that was added (``kobox kernel add``) and has modules is taken in turn. Runs alternate,
so that a busy machine is equally busy for both; the best wall-clock and the least processor time of each is printed,
and their ratio. The tree is copied first (links where possible) and nothing of ROOT is written.
"""

from __future__ import annotations

import argparse
import lzma
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from kobox.depot.names import MODULE_SUFFIXES
from kobox.depot.tree import release_of
from kobox.image import list_images

Timing = tuple[float, float]
"""Wall-clock and processor seconds."""

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32, preset=6),
    "zst": lambda data: __import__("zstandard").compress(data),
}


def timed(command: list[str], environment: dict[str, str]) -> Timing:
    """Run a command with its output dropped."""
    start = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.execvpe(command[0], command, environment)
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(command[:6])} ended with {status:#x}")
    return wall, usage.ru_utime + usage.ru_stime


def pair(name: str, kmod: list[str], kobox: list[str], rounds: int, before: Callable[[], None], cache: Path) -> None:
    """One row: both commands, alternating; ``before`` prepares each run of kobox."""
    environment = dict(os.environ, KOBOX_CACHE_DIR=str(cache), PATH=os.environ["PATH"] + ":/sbin:/usr/sbin")
    environment |= {"PYTHONPYCACHEPREFIX": str(cache.parent / "bytecode")}  # as an installed kobox has it
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment.pop("PYTHONUNBUFFERED", None)
    theirs: list[Timing] = []
    ours: list[Timing] = []
    for _ in range(rounds):
        if kmod:
            theirs.append(timed(kmod, environment))
        before()
        ours.append(timed(kobox, environment))
    own = tuple(min(column) for column in zip(*ours, strict=True))
    line = f"{name:44} kobox {own[0]:6.3f} s ({own[1]:6.3f} s CPU)"
    if theirs:
        their = tuple(min(column) for column in zip(*theirs, strict=True))
        line += f"   kmod {their[0]:6.3f} s ({their[1]:6.3f} s CPU)"
        line += f"   ratio {own[0] / their[0]:.2f} ({own[1] / their[1]:.2f})"
    print(line, flush=True)


def copy_tree(source: Path, target: Path, kind: str | None) -> None:
    """The modules and kbuild's own files, linked or compressed."""
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.name.endswith(MODULE_SUFFIXES):
            copy.parent.mkdir(parents=True, exist_ok=True)
            if kind is None or path.suffix != ".ko":
                try:
                    os.link(path, copy)
                except OSError:
                    shutil.copy(path, copy)
            else:
                copy.with_name(f"{copy.name}.{kind}").write_bytes(COMPRESSORS[kind](path.read_bytes()))
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(source / name, target / name)


def sources(root: Path | None, release: str | None) -> list[tuple[Path, str]]:
    """What to measure: (root, release) as asked, else of every added image with modules."""
    if root is not None:
        return [(root.absolute(), release or release_of(root))]
    found = [(Path(image.root), image.release) for image in list_images() if image.modules]
    if not found:
        raise SystemExit("no image with modules was added: kobox kernel add --debian, or name a ROOT")
    return found


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, nargs="?")
    parser.add_argument("release", nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compressed", choices=sorted(COMPRESSORS))
    args = parser.parse_args()
    for root, release in sources(args.root, args.release):
        measure(root, release, args.rounds, args.compressed)
    return 0


def measure(source: Path, release: str, rounds: int, kind: str | None) -> None:
    """All rows of one tree."""
    with tempfile.TemporaryDirectory(prefix="kobox-bench-", dir=source.parent) as folder:
        root, cache = Path(folder) / "root", Path(folder) / "cache"
        tree, their_tree = root / "lib/modules" / release, Path(folder) / "kmod/lib/modules" / release
        for target in (tree, their_tree):  # one each: kobox notices files that somebody else wrote
            target.mkdir(parents=True)
        copy_tree(source / "lib/modules" / release, tree, kind)
        shutil.copytree(tree, their_tree, copy_function=os.link, dirs_exist_ok=True)
        modules = sorted(str(path) for path in tree.rglob("*.ko*"))
        kobox = [sys.executable, "-m", "kobox"]
        where = ["-b", str(root), release]

        def forget() -> None:
            shutil.rmtree(cache, ignore_errors=True)

        changed = Path(modules[len(modules) // 2])
        data = changed.read_bytes()

        def change() -> None:
            changed.unlink()
            changed.write_bytes(data)

        what = changed.suffix.removeprefix(".ko") or "plain"
        theirs = ["depmod", "-b", str(Path(folder) / "kmod"), release]
        processors, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
        print(f"{len(modules)} {what} modules of {release}, {processors} processors, load {load:.1f}")
        pair(f"depmod, {what}, nothing remembered", theirs, [*kobox, "depmod", *where], rounds, forget, cache)
        pair("depmod, one module changed", theirs, [*kobox, "depmod", *where], rounds, change, cache)
        pair("depmod, nothing changed", theirs, [*kobox, "depmod", *where], rounds, lambda: None, cache)
        every = [*kobox, "modinfo", "--json", "--all", "-b", str(root), "-k", release]
        one_field = ["modinfo", "-F", "depends", *modules]
        pair("modinfo --json of all (kmod: one field)", one_field, every, rounds, lambda: None, cache)
        lines = [*kobox, "modinfo", *modules]
        pair("modinfo of all, as lines", ["modinfo", *modules], lines, rounds, lambda: None, cache)


if __name__ == "__main__":
    raise SystemExit(main())
