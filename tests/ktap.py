"""Readers of KTAP for tests: a strict one of the specification (Documentation/dev-tools/ktap.rst, version 1), and the
kernel's own, where the kernel's source is installed."""

from __future__ import annotations

import importlib
import re
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from headers import kept_folder

_RESULT = re.compile(r"(ok|not ok) (\d+)(?: - | )?([^#]*?)(?: # ?(SKIP|TODO|XFAIL|TIMEOUT|ERROR)(?: (.*))?)?")
_PARSER = "tools/testing/kunit/kunit_parser.py"


@dataclass
class Test:
    """A result line with the diagnostics before it and, for a test of tests, what is in it."""

    name: str
    ok: bool
    directive: str = ""
    notes: list[str] = field(default_factory=list)
    tests: list[Test] = field(default_factory=list)


def parse(text: str) -> list[Test]:
    """The tests of a document; anything that the specification does not have is an AssertionError."""
    lines = text.split("\n")
    assert lines.pop() == "", "the last line has no end"
    tests, rest = _document(lines, "")
    assert rest == [], f"behind the end: {rest[0]!r}"
    return tests


def _document(lines: list[str], indent: str) -> tuple[list[Test], list[str]]:
    assert lines[0] == f"{indent}KTAP version 1", lines[0]
    rest = lines[1:]
    if rest[0].startswith(f"{indent}# Subtest: "):
        rest = rest[1:]
    plan = re.fullmatch(rf"{indent}1\.\.(\d+)", rest[0])
    assert plan, rest[0]
    rest = rest[1:]
    tests: list[Test] = []
    while len(tests) < int(plan[1]):
        notes, inner = [], []
        while rest and rest[0].startswith(f"{indent}#"):
            notes.append(rest.pop(0).removeprefix(f"{indent}#").removeprefix(" "))
        if rest[0].startswith(f"{indent}    KTAP"):
            inner, rest = _document(rest, f"{indent}    ")
        line = rest.pop(0)
        assert line.startswith(indent)
        found = _RESULT.fullmatch(line.removeprefix(indent))
        assert found, f"no result line: {line!r}"
        assert int(found[2]) == len(tests) + 1, f"out of order: {line!r}"
        tests.append(Test(found[3], found[1] == "ok", found[4] or "", notes, inner))
    return tests, rest


def kernels_parser() -> ModuleType | None:
    """The kernel's ``kunit_parser`` from an installed linux-source package; unpacked once."""
    packed = sorted(Path("/usr/src").glob("linux-source-*.tar.xz"))
    if not packed:
        return None
    folder = kept_folder() / packed[-1].name.removesuffix(".tar.xz")
    if not (folder / _PARSER).exists():
        with tarfile.open(packed[-1]) as archive:
            _unpack_kunit(archive, folder)
    for name in ("kunit_parser", "kunit_printer"):  # each prints where sys.stdout led when it was imported
        sys.modules.pop(name, None)
    sys.path.insert(0, str((folder / _PARSER).parent))
    try:
        return importlib.import_module("kunit_parser")
    finally:
        sys.path.pop(0)


def _unpack_kunit(archive: tarfile.TarFile, folder: Path) -> None:
    """The Python files of one folder, which lie together; what comes behind is not read."""
    target = folder / Path(_PARSER).parent
    target.mkdir(parents=True, exist_ok=True)
    for member in archive:
        name = Path(member.name)
        content = archive.extractfile(member) if name.parent.match(str(Path(_PARSER).parent)) else None
        if content is not None and name.suffix == ".py":
            (target / name.name).write_bytes(content.read())
        elif (folder / _PARSER).exists():
            return
