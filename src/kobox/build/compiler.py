"""The compiler that modules of a kernel are built with: the one its configuration names, or the nearest there is."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

from kobox.build.headers import Headers
from kobox.errors import NotModelled

_VERSION = re.compile(r"(\d+)(?:\.\d+)+")
_PROGRAMS = {"make": "make", "ld": "binutils", "objcopy": "binutils"}
"""What kbuild runs besides the compiler, and Debian's package with it."""

_TYPES = "DEBUG_INFO_BTF_MODULES"

KBUILDS_OWN_FALLBACKS = {"-fmin-function-alignment=16": "CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT"}
"""Compiler options that the configuration promises, and the option without which kbuild itself takes an older way.
Source: the kernel's top Makefile."""


@dataclass(frozen=True, slots=True)
class Compiler:
    """``program`` to run; ``version`` is its first line of ``--version``, ``wanted`` the line of the one that built the
    kernel (empty: not known). ``variables`` are make variables that older tools need, ``notes`` what that costs."""

    program: str
    version: str
    wanted: str
    variables: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def difference(self) -> str:
        """A line for people when the compiler is not the kernel's; empty when it is."""
        if not self.wanted or _number(self.wanted) == _number(self.version):
            return ""
        return f"the kernel was built with {self.wanted}, its module is built with {self.version}"


def find_compiler(headers: Headers, asked: str | None = None) -> Compiler:
    """The compiler for a kernel; ``asked`` overrules. NotModelled names the package where there is none."""
    wanted = headers.config.get("CC_VERSION_TEXT", "")
    names = [asked] if asked else _names(wanted)
    program = next((name for name in names if shutil.which(name)), None)
    if program is None:
        package = names[0].rsplit("/", 1)[-1]
        raise NotModelled(
            f"no {' or '.join(names)} on this machine, which modules of {headers.release} are compiled with",
            f"apt-get install {package}" if not asked else "leave out --cc",
        )
    for tool, package in _PROGRAMS.items():
        if shutil.which(tool) is None:
            raise NotModelled(f"no {tool} on this machine, which building a module needs", f"apt-get install {package}")
    version = _first_line(program)
    same = _number(version) == _number(wanted)
    variables = () if same or not wanted else _variables(program, headers)
    without_types, why = _without_types(headers)
    return Compiler(program, version, wanted, (*variables, *without_types), why)


def _names(wanted: str) -> list[str]:
    """Programs to try, the kernel's own first: ``gcc-12``, then by major version, then by family."""
    own = wanted.split(" ", 1)[0].rsplit("/", 1)[-1]
    family = "clang" if "clang" in wanted else "gcc"
    major = _number(wanted).split(".", 1)[0]
    return list(dict.fromkeys(name for name in (own, f"{family}-{major}" if major else "", family) if name))


def _variables(program: str, headers: Headers) -> tuple[str, ...]:
    config = headers.config
    return tuple(
        f"{symbol}="
        for option, symbol in KBUILDS_OWN_FALLBACKS.items()
        if symbol in config and not _knows(program, option)
    )


def _without_types(headers: Headers) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What keeps kbuild from describing the module's types (BTF) where pahole is missing or older than the kernel's,
    whose options it would not know; and the note that says so. Without the kernel's own types kbuild does not try."""
    wanted = headers.config.get("PAHOLE_VERSION", "0")
    if not (headers.directory / "vmlinux").exists() or not headers.config.enabled(_TYPES):
        return (), ()
    found = re.search(r"v(\d+)\.(\d+)", _output("pahole", "--version")) if shutil.which("pahole") else None
    here = int(found[1]) * 100 + int(found[2]) if found else 0
    if wanted.isdigit() and here >= int(wanted) > 0:
        return (), ()
    what = f"pahole {here // 100}.{here % 100} is older than the kernel's" if here else "pahole is not installed"
    return (f"CONFIG_{_TYPES}=",), (f"the module gets no types of its own (BTF): {what}",)


def _output(*line: str) -> str:
    return subprocess.run(line, capture_output=True, text=True, check=False).stdout


def _knows(program: str, option: str) -> bool:
    line = [program, option, "-x", "c", "-c", "-o", "/dev/null", "/dev/null"]
    return subprocess.run(line, capture_output=True, check=False).returncode == 0


def _first_line(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout:
        raise NotModelled(f"{program} --version fails: {(done.stderr or 'says nothing').strip().splitlines()[-1]}")
    return done.stdout.splitlines()[0]


def _number(text: str) -> str:
    """``12.2.0`` in a line of ``--version``: the last number with a dot that is not inside the brackets."""
    plain = re.sub(r"\([^)]*\)", "", text)
    found = list(_VERSION.finditer(plain)) or list(_VERSION.finditer(text))
    return found[-1][0] if found else ""
