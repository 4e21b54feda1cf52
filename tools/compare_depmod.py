"""Make random module trees and compare the installed depmod with kobox's: every file, every line, the exit code.

    python -m tools.compare_depmod [--cases 1000] [--seed N] [--keep]

Each case is a tree of modules built in memory (exports, versions, aliases with brackets, soft dependencies, device
names, duplicates in several directories, compressed or broken files, links), a depmod.d file, ``modules.order`` whole,
partial or missing, and a command line. A difference prints the command and what differs; the exit code tells.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import lzma
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from builders import UNDEF, WEAK, KoBuilder
from depot_roots import plain_messages
from kobox.cli import depmod

RELEASE = "6.1.0-fuzz"
DIRECTORIES = ("kernel/fs", "kernel/net/core", "updates", "extra", "weak-updates/x", "skipped", "kernel/drivers/char")
NAMES = [f"mod{number}" for number in range(14)] + ["with-dash", "a_b", "x86-y_z", "dotted.name", "Q", "ext4"]
SYMBOLS = [f"sym_{number}" for number in range(40)] + ["printk", "init_mm", ".dotted", "_x", "a" * 70]
ALIASES = (
    "pci:v0000{n}d*sv*sd*bc*sc*i*",
    "fs-{n}",
    "char-major-{n}-*",
    "char-major-10-{n}",
    "block-major-{n}-0",
    "devname:dev{n}",
    "usb:v{n}p[0-9]*-x*",
    "broken[{n}",
    "broken]{n}",
    "same-for-all",
    "of:N*T*C{n},a-b*",
    "dmi*:svn{n}:*",
)
NOT_WRITTEN_BY_OLD_KMOD = "modules.weakdep"

Answer = tuple[int, bytes, str, dict[str, bytes]]


class Case:
    """One random tree and command line below a directory."""

    def __init__(self, root: Path, rng: random.Random) -> None:
        self.root, self.rng = root, rng
        self.tree = root / "lib/modules" / RELEASE
        self.paths: list[str] = []
        self.options: list[str] = []

    def build(self) -> Case:
        """Write the tree; the same random numbers give the same tree."""
        rng = self.rng
        self.tree.mkdir(parents=True)
        cyclic = rng.random() < 0.1
        owners = [(symbol, rng.randrange(len(NAMES))) for symbol in rng.sample(SYMBOLS, rng.randrange(1, 30))]
        for place, name in enumerate(NAMES):
            for directory in rng.sample(DIRECTORIES, rng.choice([0, 1, 1, 1, 1, 2])):
                self._module(name, place, directory, owners, cyclic)
        self._texts()
        self._command_line(owners)
        return self

    def _module(self, name: str, place: int, directory: str, owners: list[tuple[str, int]], cyclic: bool) -> None:
        rng = self.rng
        builder = KoBuilder(name, bits=rng.choice([64, 64, 64, 64, 32]), order=rng.choice("<<<<>"))
        versions = rng.random() < 0.6
        for symbol, owner in owners:
            if owner == place:
                builder.export(symbol, crc=len(symbol) if rng.random() < 0.7 else None)
            elif rng.random() < 0.15 and (cyclic or owner < place):
                builder.symbol(symbol, UNDEF, bind=WEAK if rng.random() < 0.2 else 1)
                if versions:
                    builder.version(symbol[:55], len(symbol) if rng.random() < 0.8 else 1)
        if rng.random() < 0.3:
            builder.symbol("nobody_has_this", UNDEF)
        if versions:
            builder.version("module_layout", 77)
        pairs = [("alias", rng.choice(ALIASES).format(n=rng.randrange(5))) for _ in range(rng.choice([0, 0, 1, 2, 5]))]
        pairs += [("softdep", "pre: mod1 post: mod2")] * (rng.random() < 0.2)
        rng.shuffle(pairs)
        builder.modinfo(*pairs, license="GPL", depends="")
        data = builder.build()
        if rng.random() < 0.05:
            data = data[: rng.randrange(len(data))]
        suffix = rng.choice([".ko", ".ko", ".ko", ".ko.xz"])
        path = self.tree / directory / (name + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lzma.compress(data) if suffix == ".ko.xz" and rng.random() < 0.9 else data)
        self.paths.append(str(path.relative_to(self.tree)))

    def _texts(self) -> None:
        rng = self.rng
        lines = [path.removesuffix(".xz") + "\n" for path in self.paths if rng.random() < 0.8]
        rng.shuffle(lines)
        if rng.random() < 0.9:
            text = "".join(lines)
            (self.tree / "modules.order").write_text(text if rng.random() < 0.95 else text + "kernel/cut")
        if rng.random() < 0.9:
            odd = rng.choice(["", "", "9bad.ko\n", "no_suffix\n", "kernel/last.ko"])
            (self.tree / "modules.builtin").write_text("kernel/fs/built-in.ko\nkernel/a/b_c.ko\n" + odd)
        if rng.random() < 0.9:
            strings = ["built_in.alias=fs-x", "built_in.license=GPL", "b_c.alias=a[b-c]d-e", "b_c.alias=bro]ken"]
            strings += rng.choice([[], ["b_c.flag", "b_c.alias=passed over"], ["nodot"], ["b_c.alias="]])
            (self.tree / "modules.builtin.modinfo").write_text("".join(text + "\0" for text in strings))
        if rng.random() < 0.3:
            (self.tree / "build").symlink_to("/nowhere")
        if rng.random() < 0.2 and self.paths:
            (self.tree / "linked.ko").symlink_to(self.paths[0])
        if rng.random() < 0.1:
            (self.tree / "gone.ko").symlink_to("/nowhere/gone.ko")

    def _command_line(self, owners: list[tuple[str, int]]) -> None:
        rng = self.rng
        external = self.root / "external"
        external.mkdir()
        shutil.copytree(self.tree / "kernel", external / "kernel") if (self.tree / "kernel").is_dir() else None
        lines = [
            f"search {' '.join(rng.sample(['updates', 'built-in', 'extra', 'external', 'weak-updates'], 3))}",
            f"override mod{rng.randrange(14)} {rng.choice(['*', '6.1', '^5'])} {rng.choice(DIRECTORIES)}",
            f"external {rng.choice(['*', '5.*x'])} {external}",
            "exclude skipped",
            "make_map_files no",
            "nonsense here",
            "# comment",
        ]
        config = self.root / "depmod.conf"
        config.write_text("".join(line + "\n" for line in lines if rng.random() < 0.4))
        symvers = self.root / "Module.symvers"
        symvers.write_text("0x0000004d\tmodule_layout\tvmlinux\tEXPORT_SYMBOL\t\n0xzz\tbad\tvmlinux\tE\n")
        system_map = self.root / "System.map"
        system_map.write_text("c01 R __ksymtab_module_layout\nc02 T other\ncut\n")
        self.options = ["-C", str(config)]
        choices: list[list[str]] = [["-n"], ["-w"], ["-v"], ["-e"], ["-A"], ["-a"], ["-P", "_"]]
        choices += [["-e", "-E", str(symvers)], ["-e", "-F", str(system_map)], ["-E", str(symvers)]]
        for option in rng.sample(choices, rng.choice([0, 0, 1, 2])):
            self.options += option
        self.options += ["-b", str(self.root), RELEASE]
        if rng.random() < 0.1 and self.paths:
            chosen = rng.sample(self.paths, min(3, len(self.paths)))
            self.options += [str(self.tree / path) for path in chosen]

    def answer(self, run: Callable[[list[str]], tuple[int, bytes, str]]) -> Answer:
        """What a depmod says and writes here; its files are taken away again."""
        code, out, messages = run(self.options)
        files = {}
        for path in sorted(self.tree.glob("modules.*")):
            if path.name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
                continue
            if path.name != NOT_WRITTEN_BY_OLD_KMOD:
                files[path.name] = path.read_bytes()
            path.unlink()
        return code, out, messages, files


def installed(options: list[str]) -> tuple[int, bytes, str]:
    """The installed depmod."""
    path = os.environ.get("PATH", "") + ":/sbin:/usr/sbin"
    try:
        done = subprocess.run(["depmod", *options], capture_output=True, env={"PATH": path}, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return -1, b"", "runs for ever"
    return done.returncode, done.stdout, comparable(plain_messages(done.stderr.decode("utf-8", "surrogateescape")))


def ours(options: list[str]) -> tuple[int, bytes, str]:
    """kobox's, in this process."""
    out, err = io.TextIOWrapper(io.BytesIO(), write_through=True, errors="surrogateescape"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = depmod.main([*options, "--no-cache", "-j", "1"])
    return code, out.buffer.getvalue(), comparable(err.getvalue())  # type: ignore[attr-defined]  # a BytesIO


def comparable(messages: str) -> str:
    """Messages without what is justly different: kmod's file descriptors, decompressors' words."""
    lines = []
    for line in messages.splitlines():
        if "fstatat(" in line or "could not stat " in line:
            line = "depmod: ERROR: could not stat"
        if "Invalid symbol version" in line:
            line = line.removesuffix(": No such file or directory")
        if " xz: " not in line:
            lines.append(line)
    return "\n".join(lines)


def compare(seed: int, keep: bool = False) -> list[str]:
    """The differences of one case, as text."""
    directory = Path(tempfile.mkdtemp(prefix="kobox-depmod-"))
    try:
        case = Case(directory, random.Random(seed)).build()
        theirs, own = case.answer(installed), case.answer(ours)
        if theirs[0] < 0:  # kmod 30 crashes or hangs where cycles are tangled; kobox must end and say so
            return [] if own[0] == 1 else [f"seed {seed}: kmod crashes, kobox ends with {own[0]}"]
        found = []
        for what, one, other in zip(("exit code", "stdout", "messages"), theirs, own, strict=False):
            if one != other:
                found.append(f"{what}:\n  kmod:  {one!r}\n  kobox: {other!r}")
        for name in sorted(theirs[3].keys() | own[3].keys()):
            if theirs[3].get(name) != own[3].get(name):
                found.append(f"{name}:\n  kmod:  {theirs[3].get(name)!r}\n  kobox: {own[3].get(name)!r}")
        return [f"seed {seed}: depmod {' '.join(case.options)}", *found] if found else []
    finally:
        if not keep:
            shutil.rmtree(directory)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="keep the trees")
    args = parser.parse_args()
    different = 0
    for seed in range(args.seed, args.seed + args.cases):
        found = compare(seed, args.keep)
        if found:
            different += 1
            print("\n".join(text[:2000] for text in found))
    print(f"{args.cases - different} of {args.cases} cases are the same")
    return 1 if different else 0


if __name__ == "__main__":
    raise SystemExit(main())
