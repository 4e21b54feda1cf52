"""Compare kobox's modprobe with the installed kmod on random systems: ``python -m tools.fuzz_modprobe [--cases N]``.

Each case is a made-up root (module tree, modprobe.d in several directories, kernel command line, loaded modules) in
which the real modprobe runs by chroot and kobox by ``--root``; standard output, exit code and messages must be the
same. What may differ is listed in ``JUSTIFIED`` with its reason; everything else is a failure, printed with its seed.
Nothing is loaded: every command is a query or a dry run.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from depot_roots import RELEASE, DepotRoot, chroot_kmod, run_in_root  # type: ignore[import-not-found]
from kobox.cli import modprobe
from kobox.errors import KoboxError

NAMES = ["foo", "foo-bar", "snd_pcm", "a", "ab", "libx", "crc-t10dif", "net_drv", "zz1", "m.dot"]
BUILTINS = ["unix", "ext-b", "bi"]
DIRS = ["etc/modprobe.d", "run/modprobe.d", "usr/local/lib/modprobe.d", "lib/modprobe.d"]
FILES = [
    "a.conf",
    "b.conf",
    "modules.conf",
    "zz.conf",
    "10-x.conf",
    "Upper.conf",
    "x.alias",
    "README",
    ".hid.conf",
    "c.conf~",
]
ALIASES = [
    "fs-foo",
    "pci:v*d00*",
    "usb:v1?p*",
    "net-pf-[0-9]",
    "char-major-10-*",
    "x[a-c]y",
    "al*",
    "foo*",
    "*",
    "a?",
    "q",
]
ASKED = [
    "fs-foo",
    "pci:v1d0012",
    "usb:v12p3",
    "net-pf-7",
    "char-major-10-1",
    "xby",
    "alpha",
    "ab",
    "nothing",
    "symbol:sym_a",
]


class Answer(NamedTuple):
    code: int
    out: str
    err: str


class Asked(NamedTuple):
    """One command line and its MODPROBE_OPTIONS (empty: not set). ``ROOT/`` stands for the root in paths."""

    words: list[str]
    options: str = ""

    def __str__(self) -> str:
        return f"{f'MODPROBE_OPTIONS={self.options!r} ' if self.options else ''}modprobe {' '.join(self.words)}"


class World(NamedTuple):
    """One generated system and what is asked of it."""

    root: DepotRoot
    commands: list[Asked]


class Justified(NamedTuple):
    name: str
    reason: str
    holds: Callable[[Asked, Answer, Answer], bool]


JUSTIFIED = (
    Justified(
        "kmod-crash",
        "kmod dies (endless recursion over soft dependencies while removing); kobox cuts the loop",
        lambda command, kmod, kobox: kmod.code < 0 or kmod.code >= 128,
    ),
    Justified(
        "path",
        "kmod 30 takes a path for a name; kobox inserts the file, as kmod 33 and later do",
        lambda asked, kmod, kobox: any(word.startswith("ROOT/") for word in asked.words) and "-nvC" in asked.words,
    ),
    Justified(
        "weakdep",
        "kmod 30 does not know weakdep lines; kobox reads them, as kmod 33 and later do",
        lambda command, kmod, kobox: _without_weakdep(kmod) == _without_weakdep(kobox),
    ),
)


def _without_weakdep(answer: Answer) -> Answer:
    out = re.sub(r"^weakdep .*\n", "", answer.out, flags=re.MULTILINE)
    err = re.sub(r"^.*ignoring bad line starting with 'weakdep'\n", "", answer.err, flags=re.MULTILINE)
    return Answer(answer.code, out, err)


# --- making a system -------------------------------------------------------------------------------------------------


def make_world(path: Path, seed: int) -> World:
    rng = random.Random(seed)
    root = DepotRoot(path)
    paths = {
        name: f"kernel/{rng.choice(['a', 'b'])}/{name}.ko" for name in rng.sample(NAMES, rng.randint(3, len(NAMES)))
    }
    for file in paths.values():
        others = [other for other in paths.values() if other != file]
        root.module(file, needs=rng.sample(others, rng.choice([0, 0, 1, 2, 3]) % (len(others) + 1)))
    for name in rng.sample(BUILTINS, 2):
        root.builtin(f"kernel/{name}.ko")
    spelled = [name.partition(".")[0].replace("-", "_") for name in paths]
    for _ in range(rng.randint(0, 6)):
        root.alias(rng.choice(ALIASES), rng.choice(spelled))
    for letter in "ab":
        root.symbol(f"sym_{letter}", rng.choice(spelled))
    for _ in range(rng.randint(0, 2)):
        root.builtin_alias(rng.choice(ALIASES), "unix")
    for name in rng.sample(spelled, rng.randint(0, 3)):
        root.loaded(name, rng.choice([0, 0, 1]), tuple(rng.sample(spelled, rng.choice([0, 0, 1]))), rng.choice(STATES))
    known = [*paths, *BUILTINS]
    root.softdep("".join(_softdep(rng, known) + "\n" for _ in range(rng.randint(0, 3))))
    for _ in range(rng.randint(0, 5)):
        root.conf(f"{rng.choice(DIRS)}/{rng.choice(FILES)}", _conf(rng, known))
    root.cmdline(_cmdline(rng, known))
    return World(root, [_command(rng, known) for _ in range(12)])


STATES = ["live", "live", "live", "coming", "going"]


def _conf(rng: random.Random, names: list[str]) -> bytes:
    lines = [_line(rng, names) for _ in range(rng.randint(0, 8))]
    text = rng.choice(["\n", "\n", "\n\n", " \\\n\n"]).join(lines) + rng.choice(["\n", "\n", "", "\\"])
    return text.encode("utf-8", "surrogateescape")


def _line(rng: random.Random, names: list[str]) -> str:
    name = _name(rng, names)
    kinds: list[Callable[[], str]] = [
        lambda: f"alias {rng.choice([*ALIASES, name])} {_name(rng, names)}",
        lambda: f"blacklist {name}",
        lambda: f"options {name} {_parameters(rng)}",
        lambda: f"install {name} {rng.choice(COMMANDS)}",
        lambda: f"remove {name} {rng.choice(COMMANDS)}",
        lambda: _softdep(rng, names),
        lambda: f"weakdep {name} {_name(rng, names)}",
        lambda: rng.choice(
            ["# comment", " # not a comment", "", "   ", "include x", "config y", "alias x", "bogus a b"]
        ),
        lambda: f"blacklist {rng.choice(ODD_NAMES)}",
    ]
    line = rng.choices(kinds, weights=[4, 3, 4, 3, 2, 4, 1, 2, 1])[0]()
    return _spaced(rng, line)


ODD_NAMES = ["[", "a]b", "x[y-z", "[a-z]", "caf\udce9", "é"]
COMMANDS = ["/bin/false", "/bin/true", "echo $CMDLINE_OPTS", "modprobe -i x $CMDLINE_OPTS; true", "/sbin/modprobe  --x"]


def _spaced(rng: random.Random, line: str) -> str:
    """Now and then other blanks, a continued line, a stray backslash."""
    out = []
    for char in line:
        if char == " ":
            char = rng.choices([" ", "  ", "\t", " \t ", " \\\n", "\\ "], weights=[40, 3, 3, 1, 2, 1])[0]
        out.append(char)
    return (
        rng.choices(["", " ", "\t"], weights=[20, 1, 1])[0] + "".join(out) + rng.choices(["", " "], weights=[9, 1])[0]
    )


def _softdep(rng: random.Random, names: list[str]) -> str:
    words = []
    for kind in rng.choice([["pre:"], ["post:"], ["pre:", "post:"], ["post:", "pre:"], [""], ["pre:", "pre:"]]):
        words += [kind, *(_name(rng, names) for _ in range(rng.randint(0, 2)))]
    return f"softdep {_name(rng, names)} " + rng.choices([" ", "  "], weights=[9, 1])[0].join(filter(None, words))


def _name(rng: random.Random, names: list[str]) -> str:
    name = rng.choice([*names, *names, *ASKED, "foo*", "[a-z]*", "*"]) if rng.random() < 0.9 else "none-such"
    return name.replace("-", "_") if rng.random() < 0.3 else name


def _parameters(rng: random.Random) -> str:
    words = ["a=1", "b", 'c="x y"', "d='q'", 'e=\\"z', "f=1,2", "g=$x"]
    return " ".join(rng.sample(words, rng.randint(1, 3)))


def _cmdline(rng: random.Random, names: list[str]) -> str:
    words = []
    for _ in range(rng.randint(0, 6)):
        words.append(rng.choice(CMDLINE_WORDS).replace("NAME", rng.choice(names)))
    return " ".join(words)


CMDLINE_WORDS = [
    *("NAME.p=1", "NAME.flag", 'NAME.q="a b"', '"NAME.q=a b"', "NAME.", ".NAME", 'NAME."x y"', "NAME.a.b=c.d"),
    *("modprobe.blacklist=NAME,a,b-c", "modprobe.blacklist=", "quiet", "root=/dev/sda1", '"', '" x"', "\t", "  "),
    *("NAME.x=1.5", "x[NAME.y=1", 'NAME.s="unclosed', "-- init.x=1"),
]


def _command(rng: random.Random, names: list[str]) -> Asked:
    asked = [rng.choice([*names, *ASKED]) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    mode = rng.choice(MODES).split()
    if len(asked) > 1 and rng.random() < 0.3:
        asked[1] = rng.choice(["p=1", 'p="a b"', "p=a b", "p='a b", "p= ", "q"])
    if rng.random() < 0.15:
        mode += ["-C", f"ROOT/{rng.choice([*DIRS, *(f'{DIRS[0]}/{name}' for name in FILES)])}"]
    options = rng.choice(ENVIRONMENT) if rng.random() < 0.15 else ""
    return Asked([*mode, *(["--"] if rng.random() < 0.1 else []), *asked], options)


ENVIRONMENT = ["-v", "-q", "-v -v", "-C ROOT/etc/modprobe.d", "-a", "-b -i", " -v", "'-v'", "-C 'ROOT/run/modprobe.d'"]


MODES = [
    *("-c", "-D", "-D", "-R", "-n -v", "-nv", "-a -D", "-a -nv", "-aR", "-Di", "-Db", "-aDb", "-n", "-q -nv", "-qR"),
    *("-rnv", "-rnv", "-rnvi", "-rD", "-rnva", "-rnv --remove-holders", "-rnvw 5", "-rn", "-rDi --remove-h"),
    *("--first-time -nv", "--first-time -rnv", "--show-d", "--fo -n", "--bogus", "-nv --use-b", "-Z", "-nvC"),
]


# --- asking both -----------------------------------------------------------------------------------------------------


def ask_kmod(root: Path, asked: Asked) -> Answer:
    words = [word.replace("ROOT/", "/") for word in asked.words]
    environment = {"MODPROBE_OPTIONS": asked.options.replace("ROOT/", "/")} if asked.options else {}
    return Answer(*run_in_root(root, "modprobe", ["-S", RELEASE, *words], environment))


def ask_kobox(root: Path, asked: Asked) -> Answer:
    out, err = io.StringIO(), io.StringIO()
    command = [word.replace("ROOT/", f"{root}/") for word in asked.words]
    os.environ.pop("MODPROBE_OPTIONS", None)
    if asked.options:
        os.environ["MODPROBE_OPTIONS"] = asked.options.replace("ROOT/", f"{root}/")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = modprobe.main(["--root", str(root), "-S", RELEASE, *command])
        except KoboxError as error:
            code = error.exit_code
            err.write(f"kobox modprobe: {error}\n")
    return Answer(code, out.getvalue().replace(str(root), ""), err.getvalue().replace(str(root), ""))


def verdict(command: Asked, kmod: Answer, kobox: Answer) -> str:
    """``same``, the name of a justified difference, or ``DIFFERENT``."""
    if kmod == kobox:
        return "same"
    return next((known.name for known in JUSTIFIED if known.holds(command, kmod, kobox)), "DIFFERENT")


def fuzz(cases: int, seed: int, show: int) -> Counter[str]:
    """Run ``cases`` systems from ``seed`` on; print at most ``show`` differences."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="kobox-fuzz-") as directory:
        root = Path(directory) / "root"
        chroot_kmod(root)
        for number in range(seed, seed + cases):
            for part in ("etc", "run", "usr", "proc", "sys", "lib/modprobe.d", "lib/modules"):
                shutil.rmtree(root / part, ignore_errors=True)
            world = make_world(root, number)
            world.root.write()
            for command in world.commands:
                kmod, kobox = ask_kmod(root, command), ask_kobox(root, command)
                said = verdict(command, kmod, kobox)
                counts[said] += 1
                if said == "DIFFERENT" and counts[said] <= show:
                    print(f"--- seed {number}: {command}\nkmod  {kmod}\nkobox {kobox}", flush=True)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=200, help="how many systems (12 commands each)")
    parser.add_argument("--seed", type=int, default=1, help="the first system's seed")
    parser.add_argument("--show", type=int, default=5, help="differences to print in full")
    args = parser.parse_args()
    start = time.monotonic()
    counts = fuzz(args.cases, args.seed, args.show)
    total = sum(counts.values())
    print(
        f"{total} commands on {args.cases} systems in {time.monotonic() - start:.0f} s: "
        + ", ".join(f"{count} {name}" for name, count in counts.most_common())
    )
    return 1 if counts["DIFFERENT"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
