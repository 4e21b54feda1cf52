"""Run the tool tests of kmod's own test suite on kobox: ``python -m tools.kmod_suite KMOD_CHECKOUT [--modules DIR]``.

The tests, their fixture roots and their expected outputs are read from the checkout; nothing of them is kept here.
The C preprocessor turns each ``test-*.c`` into plain initialisers; the tests that run ``modprobe``, ``depmod`` or
``modinfo`` are taken from them, and ``scripts/setup-rootfs.sh`` says which test module goes where. The modules must be
there already: in the checkout's ``testsuite/module-playground``, or in ``--modules``.

kmod fakes root directory and system calls by preloaded libraries; here kobox gets ``--root`` and a target that notes
what is inserted below the fixture's ``/sys/module``, which is what those libraries do. Ends with ``N of M pass``.
"""

from __future__ import annotations

import argparse
import gzip
import lzma
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

MODULE_DIRECTORY = "/lib/modules"
TOOLS = ("modprobe", "depmod", "modinfo")


@dataclass(frozen=True, slots=True)
class Case:
    """One test of the suite, as its source has it."""

    name: str
    tool: str
    arguments: tuple[str, ...]
    root: str
    release: str
    directory: str = ""
    out: str = ""
    err: str = ""
    regex: bool = False
    files: tuple[tuple[str, str], ...] = ()
    loaded: tuple[str, ...] | None = None
    not_loaded: tuple[str, ...] = ()
    expected_fail: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


# --- reading the suite -----------------------------------------------------------------------------------------------

_STRING = r'((?:"(?:[^"\\]|\\.)*"\s*)+)'


def read_cases(checkout: Path, rootfs: Path) -> Iterator[Case]:
    """Every test that runs one of the tools, in the order of the sources."""
    for source in sorted((checkout / "testsuite").glob("test-*.c")):
        text = _preprocessed(source, checkout, rootfs)
        functions = dict(_functions(text))
        for block in _test_blocks(text):
            function = re.search(r"\.func\s*=\s*(\w+)", block)
            body = functions.get(function[1], "") if function else ""
            spawned = re.search(rf"test_spawn_prog\(\s*{_STRING},.*?\{{(.*?)\}}", body, re.DOTALL)
            if spawned is not None and Path(_text(spawned[1])).name in TOOLS:
                yield _case(block, body, spawned)


def _preprocessed(source: Path, checkout: Path, rootfs: Path) -> str:
    defines = {
        "TESTSUITE_ROOTFS": f'"{rootfs}/"',
        "MODULE_DIRECTORY": f'"{MODULE_DIRECTORY}"',
        "SYSCONFDIR": '"/etc"',
        "TOOLS_DIR": '"TOOLS"',
        "ENABLE_OPENSSL": "1",
        "_GNU_SOURCE": "1",
    }
    options = [f"-D{name}={value}" for name, value in defines.items()]
    command = ["cc", "-E", "-P", f"-I{checkout}", *options, str(source)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _functions(text: str) -> Iterator[tuple[str, str]]:
    for match in re.finditer(r"static int (\w+)\(void\)\s*\{", text):
        yield match[1], _balanced(text, match.end() - 1)


def _test_blocks(text: str) -> Iterator[str]:
    for match in re.finditer(r"static const struct test\s+\w+\s*=\s*\{", text):
        yield _balanced(text, match.end() - 1)


def _balanced(text: str, start: int) -> str:
    depth = 0
    for at in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[start : at + 1]
    raise ValueError("unbalanced braces in the preprocessed source")


def _text(literals: str) -> str:
    return "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', literals))


def _field(block: str, name: str) -> str:
    match = re.search(rf"{name}\s*=\s*{_STRING}", block)
    return _text(match[1]) if match else ""


def _pairs(block: str, name: str) -> tuple[tuple[str, str], ...]:
    match = re.search(rf"\.{name}\s*=.*?\{{", block, re.DOTALL)
    if match is None:
        return ()
    inside = _balanced(block, match.end() - 1)
    return tuple((_text(one), _text(two)) for one, two in re.findall(rf"\{{\s*{_STRING},\s*{_STRING},?\s*\}}", inside))


def _names(block: str, name: str) -> tuple[str, ...] | None:
    if not re.search(rf"\.{name}\s*=", block):
        return None
    return tuple(sorted(word.replace("-", "_") for word in _field(block, rf"\.{name}").split(",") if word))


def _case(block: str, body: str, spawned: re.Match[str]) -> Case:
    words = [_text(literal) for literal in re.findall(_STRING, spawned[2])]
    moved = re.search(rf"chdir\(\s*{_STRING}\)", body)
    return Case(
        name=_field(block, r"\.name"),
        tool=Path(_text(spawned[1])).name,
        arguments=tuple(words[1:]),
        root=_field(block, r"\[TC_ROOTFS\]"),
        release=_field(block, r"\[TC_UNAME_R\]"),
        directory=_text(moved[1]) if moved else "",
        out=_field(block, r"\.out"),
        err=_field(block, r"\.err"),
        regex=re.search(r"\.regex\s*=\s*(1|true)", block) is not None,
        files=_pairs(block, "files"),
        loaded=_names(block, "modules_loaded"),
        not_loaded=_names(block, "modules_not_loaded") or (),
        expected_fail=re.search(r"\.expected_fail\s*=\s*(1|true)", block) is not None,
        environment=dict(_pairs(block, "env_vars")),
    )


# --- the fixture roots -----------------------------------------------------------------------------------------------


def make_rootfs(checkout: Path, modules: Path, rootfs: Path) -> list[str]:
    """Copy the pristine roots and place the test modules; the names of modules that are not there."""
    shutil.copytree(checkout / "testsuite/rootfs-pristine", rootfs, symlinks=True)
    for path in [rootfs, *(path for path in rootfs.rglob("*") if path.is_dir())]:
        path.chmod(path.stat().st_mode | 0o700)
    script = (checkout / "scripts/setup-rootfs.sh").read_text().replace("$MODULE_DIRECTORY", MODULE_DIRECTORY)
    missing = []
    for place, name in re.findall(r'^\s*\["([^"]+)"\]="([^"]+)"', script, re.MULTILINE):
        source = modules / name
        target = rootfs / place / name if place.endswith("/") else rootfs / place
        if not source.exists():
            missing.append(f"{name} (for {place})")
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    playground = checkout / "testsuite/module-playground"
    for kind, places in re.findall(r"^(\w+)_array=\((.*?)\)", script, re.MULTILINE | re.DOTALL):
        for place in re.findall(r'"([^"]+)"', places):
            if (rootfs / place).exists():
                _change(rootfs / place, kind, playground)
    return missing


def _change(file: Path, kind: str, playground: Path) -> None:
    """Compress the file, or attach a signature, as the name of the script's list says."""
    if kind.startswith("attach_"):
        file.write_bytes(file.read_bytes() + (playground / f"dummy.{kind.removeprefix('attach_')}").read_bytes())
        return
    suffix, data = _compressed(kind, file.read_bytes())
    file.with_name(file.name + suffix).write_bytes(data)
    file.unlink()


def _compressed(kind: str, data: bytes) -> tuple[str, bytes]:
    if kind == "gzip":
        return ".gz", gzip.compress(data)
    if kind == "xz":
        return ".xz", lzma.compress(data, check=lzma.CHECK_CRC32)
    import zstandard

    return ".zst", zstandard.compress(data)


# --- running ---------------------------------------------------------------------------------------------------------


def run_case(case: Case) -> list[str]:
    """What is wrong, in words; empty if the test passes."""
    command = [*_self(case.tool, case.root, case.release), *case.arguments]
    helper = shlex.join(_self("modprobe", case.root, case.release))
    environment = os.environ | {name: helper for name in case.environment if name == "MODPROBE"}
    environment.pop("MODPROBE_OPTIONS", None)
    here = case.root + case.directory if case.directory else os.getcwd()
    environment["PYTHONPATH"] = os.pathsep.join((os.getcwd(), environment.get("PYTHONPATH", "")))
    done = subprocess.run(command, capture_output=True, text=True, cwd=here, env=environment)
    prefix = case.root.rstrip("/")
    out, err = done.stdout.replace(prefix, ""), done.stderr.replace(prefix, "")
    wrong: list[str] = []
    if (done.returncode != 0) != case.expected_fail:
        wrong.append(f"exit code {done.returncode}; it said {err.strip()!r}")
    if case.out and not _same(Path(case.out).read_text(), out, case.regex):
        wrong.append(f"standard output is {out!r}, expected {Path(case.out).read_text()!r}")
    if case.err and not _same(Path(case.err).read_text(), err, case.regex):
        wrong.append(f"standard error is {err!r}, expected {Path(case.err).read_text()!r}")
    for one, two in case.files:
        if not (Path(one).exists() and Path(two).exists()):
            wrong.append(f"{one} or {two} was not written")
        elif Path(one).read_bytes() != Path(two).read_bytes():
            wrong.append(f"{two} differs from {one}")
    wrong += _wrong_loaded(case)
    return wrong


def _self(tool: str, root: str, release: str) -> list[str]:
    return [sys.executable, "-m", "tools.kmod_suite", "--tool", tool, root.rstrip("/"), release, "--"]


def _same(expected: str, found: str, regex: bool) -> bool:
    """As the suite compares: what was expected may go on with empty lines."""
    if not regex:
        return found.rstrip("\n") == expected.rstrip("\n")
    patterns, lines = expected.splitlines(), found.splitlines()
    return len(patterns) == len(lines) and all(re.fullmatch(*pair) for pair in zip(patterns, lines, strict=True))


def _wrong_loaded(case: Case) -> list[str]:
    directory = Path(case.root) / "sys/module"
    loaded = sorted(path.parent.name for path in directory.glob("*/initstate"))
    wrong = []
    if case.loaded is not None and list(case.loaded) != loaded:
        wrong.append(f"loaded are {loaded}, expected {list(case.loaded)}")
    bad = [name for name in case.not_loaded if name in loaded]
    return [*wrong, f"loaded, but should not be: {bad}"] if bad else wrong


def run_tool(tool: str, root: str, release: str, arguments: list[str]) -> int:
    """What a test's process does: one of kobox's tools, with everything below ``root``."""
    inside = [root + word if word.startswith("/") else word for word in arguments]
    if tool == "modprobe":
        from kobox.cli import modprobe

        return modprobe.main(["-S", release, *inside], target=_NotingTarget(root), root=root)
    from kobox.cli import main as kobox

    if tool == "depmod":
        moddir = [word if last == "-m" else mapped for last, word, mapped in _with_last(arguments, inside)]
        return kobox(["depmod", "--root", root, *moddir, release])
    return kobox(["modinfo", "-b", root, *(("-k", release) if release else ()), *inside])


def _with_last(words: list[str], mapped: list[str]) -> Iterator[tuple[str, str, str]]:
    for at, (word, other) in enumerate(zip(words, mapped, strict=True)):
        yield (words[at - 1] if at else ""), word, other


class _NotingTarget:
    """A kernel in which every insertion succeeds and is noted below ``/sys/module``."""

    def __init__(self, root: str) -> None:
        self.root = root

    def loaded(self) -> Mapping[str, object]:
        from kobox.depot.targets import SysModules

        return SysModules(self.root)

    def insert(self, path: str, options: str, flags: int) -> None:
        from kobox.depot.names import module_name_of_path

        directory = Path(self.root) / "sys/module" / module_name_of_path(path)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "initstate").write_text("live\n")

    def remove(self, name: str, flags: int) -> None:
        shutil.rmtree(Path(self.root) / "sys/module" / name)

    def run_command(self, command: str, environment: Mapping[str, str]) -> int:
        return subprocess.run(command, shell=True, env=os.environ | dict(environment)).returncode


def main() -> int:
    if sys.argv[1:2] == ["--tool"]:
        tool, root, release, _, *arguments = sys.argv[2:]
        return run_tool(tool, root, release, arguments)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="a checkout of kmod, 33 or later")
    parser.add_argument("--modules", type=Path, help="where the suite's test modules (mod-simple.ko …) are")
    parser.add_argument("-k", dest="only", default="", help="only tests whose name contains this")
    args = parser.parse_args()
    modules = args.modules or args.checkout / "testsuite/module-playground"
    if not (modules / "mod-simple.ko").exists():
        print(f"{modules}: no mod-simple.ko: the suite's test modules are not there; see its README", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="kobox-kmod-suite-") as directory:
        return _run_all(args.checkout, modules, Path(directory) / "rootfs", args.only)


def _run_all(checkout: Path, modules: Path, rootfs: Path, only: str) -> int:
    pristine = rootfs.with_name("pristine")
    for name in make_rootfs(checkout, modules, pristine):
        print(f"not placed: {name}")
    cases = [case for case in read_cases(checkout, rootfs) if only in case.name]
    passed = 0
    for case in cases:
        shutil.rmtree(rootfs, ignore_errors=True)
        shutil.copytree(pristine, rootfs, symlinks=True)
        wrong = run_case(case)
        passed += not wrong
        for what in wrong:
            print(f"FAIL {case.name}: {case.tool} {' '.join(case.arguments)}: {what}")
    print(f"{passed} of {len(cases)} pass")
    return 0 if passed == len(cases) else 1


if __name__ == "__main__":
    raise SystemExit(main())
