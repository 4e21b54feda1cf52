"""Lines that put a module out of reach, and the proof that they do.

``install X /bin/false`` is the line that stops most ways in. A soft dependency makes kmod pass it over, so an empty
``softdep X pre:`` that comes first takes that away. Both must stand in a file whose name sorts before every other, and
before ``modules.softdep``. ``blacklist X`` adds what programs that only look at blacklists (udev, systemd) need.
"""

from __future__ import annotations

from collections.abc import Iterable

from kobox.audit.ways import System, expose
from kobox.depot.config import parse_file
from kobox.depot.facts import Config, empty_config

FIX_FILE = "00-kobox-audit.conf"
"""Digits sort before letters, so this comes before ``modules.softdep`` and before almost every other file."""


def fix_lines(module: str, system: System) -> list[str]:
    """The modprobe.d lines that stop a module on this system."""
    lines = [f"blacklist {module}", f"install {module} /bin/false"]
    if system.resolver.effective_softdep(module) is not None:
        lines.append(f"softdep {module} pre:")
    return lines


def with_lines(config: Config, lines: Iterable[str], file: str = f"/etc/modprobe.d/{FIX_FILE}") -> Config:
    """The configuration as it would be with these lines in a file that sorts first."""
    first = empty_config()
    parse_file("".join(line + "\n" for line in lines).encode("utf-8", "surrogateescape"), file, first)
    return Config(
        aliases=first.aliases + config.aliases,
        blacklists=first.blacklists + config.blacklists,
        options=first.options + config.options,
        install=first.install + config.install,
        remove=first.remove + config.remove,
        softdeps=first.softdeps + config.softdeps,
        weakdeps=first.weakdeps + config.weakdeps,
        complaints=first.complaints + config.complaints,
        files=first.files + config.files,
    )


def proven(module: str, lines: Iterable[str], system: System) -> bool:
    """Whether every way in but ``insmod`` is closed once these lines are there; by simulating them all again."""
    return not expose(module, system.with_config(with_lines(system.config, lines))).open_ways


def fix_text(modules: Iterable[str], system: System) -> str:
    """A whole file for /etc/modprobe.d that stops these modules."""
    out = [f"# {FIX_FILE}: made by kobox audit; keep the name, the file must be read first\n"]
    for module in modules:
        out += ["\n", *(line + "\n" for line in fix_lines(module, system))]
    return "".join(out)
