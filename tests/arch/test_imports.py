"""The rooms of the house: imports go downward only, fences hold, and nothing heavy is imported early."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[2] / "src" / "kobox"

RANKS = {
    "errors": 0, "abi": 0,
    "elf": 1, "machine": 1, "fuse": 1,
    "confine": 1,
    "ko": 2,
    "link": 3, "sign": 3, "image": 3, "depot": 3,
    "kernel": 4, "efi": 4,
    "kapi": 5, "bringup": 5, "devices": 5, "debug": 5, "net": 5, "dmesg": 5,
    "bare": 6,
    "box": 6, "runner": 6,
    "audit": 7, "shell": 7, "build": 7, "initramfs": 7, "kunit": 7, "sweep": 7, "verdict": 7, "mount": 7,
    "session": 8, "inspect": 8,
    "enter": 9, "watch": 9, "cli": 9, "web": 9, "pytest_plugin": 9, "__main__": 10, "__init__": 10,
}  # fmt: skip

MAY_SHARE = {
    ("runner", "box"),
    ("box", "bare"),
    ("bringup", "kapi"),
    ("audit", "build"),
    ("cli", "watch"),
    ("cli", "enter"),
    ("watch", "pytest_plugin"),
}
"""Rooms of one rank that know each other: parts of the front door, and the boot that installs adopted functions."""

FENCES = {
    "unicorn": {"machine"},
    "cryptography": {"sign"},
    "asn1crypto": {"sign"},
    "pytest": {"pytest_plugin"},
    "_pytest": {"pytest_plugin"},
    "aiohttp": {"session"},
}

LATE_FOR_COLD_START = {("depot", "kobox.ko"), ("depot", "kobox.depot.cmdline"), ("kernel", "kobox.ko")}
"""``kobox modprobe``, and a client's command on a session, pay for reading module files only when they must."""

IMPORTS_IN_FUNCTIONS = {
    "box", "runner", "bare", "mount", "cli", "session", "watch", "pytest_plugin", "web",
    "__init__", "__main__",
}  # fmt: skip

FILES = sorted(SRC.rglob("*.py"))


def room_of(path: Path) -> str:
    """The first name below ``kobox``."""
    return path.relative_to(SRC).parts[0].removesuffix(".py")


@cache
def imports(path: Path) -> tuple[tuple[str, bool, int], ...]:
    """(module, inside a function, line) of each import that is executed."""

    def visit(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool, int]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                yield from ((name.name, inside, child.lineno) for name in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}:{child.lineno}: relative import"
                assert all(name.name != "*" for name in child.names), f"{path}:{child.lineno}: star import"
                if child.module == "kobox":
                    yield from ((f"kobox.{name.name}", inside, child.lineno) for name in child.names)
                else:
                    yield child.module or "", inside, child.lineno
            yield from visit(child, inside or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))

    return tuple(visit(ast.parse(path.read_text()), False))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_every_file_imports_only_from_rooms_below_its_own(path: Path) -> None:
    own = room_of(path)
    assert own in RANKS, f"{own} has no rank: is it a new room?"
    for name, _, line in imports(path):
        parts = name.split(".")
        if parts[0] != "kobox" or len(parts) == 1:
            continue
        other = parts[1]
        if other == own or other.startswith("__"):
            continue
        assert other in RANKS, f"{path}:{line}: {name} is in no known room"
        allowed = RANKS[other] < RANKS[own] or (own, other) in MAY_SHARE
        assert allowed, f"{path}:{line}: {own} (rank {RANKS[own]}) imports {name} (rank {RANKS[other]})"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_third_party_packages_stay_behind_their_fences(path: Path) -> None:
    for name, _, line in imports(path):
        rooms = FENCES.get(name.split(".")[0])
        assert rooms is None or room_of(path) in rooms, f"{path}:{line}: {name} belongs to {rooms}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_only_the_front_door_and_the_faces_import_late(path: Path) -> None:
    if room_of(path) in IMPORTS_IN_FUNCTIONS:
        return
    late = [
        (name, line)
        for name, inside, line in imports(path)
        if inside and name.startswith("kobox") and (room_of(path), name) not in LATE_FOR_COLD_START
    ]
    assert not late, f"{path}: imports inside functions: {late}"


def test_every_file_says_what_lives_in_it() -> None:
    silent = [str(path.relative_to(SRC)) for path in FILES if ast.get_docstring(ast.parse(path.read_text())) is None]
    assert not silent
