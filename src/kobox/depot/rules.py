"""A configuration arranged for look-ups: the first line that matches a name, all options of a name."""

from __future__ import annotations

from collections.abc import Iterable

from kobox.depot.facts import Command, Config, Options, Place, Softdep
from kobox.depot.names import wildcard


def is_glob(pattern: str) -> bool:
    return "*" in pattern or "?" in pattern or "[" in pattern or "\\" in pattern


def glob_match(pattern: str, name: str) -> bool:
    """``fnmatch`` without flags; a pattern that is no wildcard is only compared."""
    if is_glob(pattern):
        return wildcard(pattern).fullmatch(name) is not None
    return pattern == name


class _FirstMatch:
    """Finds the first of many patterns that matches a name, without trying them all."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._exact: dict[str, int] = {}
        self._globs: list[tuple[int, str]] = []
        for at, pattern in enumerate(patterns):
            if is_glob(pattern):
                self._globs.append((at, pattern))
            else:
                self._exact.setdefault(pattern, at)

    def find(self, name: str) -> int | None:
        """The position of the first match."""
        exact = self._exact.get(name)
        for at, pattern in self._globs:
            if exact is not None and at > exact:
                break
            if wildcard(pattern).fullmatch(name) is not None:
                return at
        return exact


class Rules:
    """The lines of a configuration by what they are about. ``places`` is room for look-ups to remember places in."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._install = _FirstMatch(line.pattern for line in config.install)
        self._remove = _FirstMatch(line.pattern for line in config.remove)
        self._softdeps = _FirstMatch(line.pattern for line in config.softdeps)
        self.options: dict[str, list[Options]] = {}
        for line in config.options:
            if line.options:
                self.options.setdefault(line.module, []).append(line)
        self.order = {id(line): at for at, line in enumerate(config.options)}
        self.places: dict[str, Place] = {}

    def install(self, name: str) -> Command | None:
        at = self._install.find(name)
        return None if at is None else self.config.install[at]

    def remove(self, name: str) -> Command | None:
        at = self._remove.find(name)
        return None if at is None else self.config.remove[at]

    def softdep(self, name: str) -> Softdep | None:
        at = self._softdeps.find(name)
        return None if at is None else self.config.softdeps[at]

    def options_of(self, name: str, alias: str | None) -> list[Options]:
        """The lines of either name, in the order of the configuration."""
        if alias is None or alias == name:
            return self.options.get(name, [])
        both = [*self.options.get(name, ()), *self.options.get(alias, ())]
        return sorted(both, key=lambda line: self.order[id(line)])
