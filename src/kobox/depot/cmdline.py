"""The kernel command line as kmod reads it: ``module.param=value`` for any module, and ``modprobe.blacklist=a,b``.

A small state machine, because boot loaders move quotes (``"foo.bar=a b"`` for ``foo.bar="a b"``). The kernel's own
``module_blacklist=`` is another thing: it refuses the load itself, and is reported by ``kernel_blacklist``.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from kobox.depot.facts import Blacklist, Complaint, Config, Options, Place
from kobox.depot.names import normal_alias

MAX_SIZE = 4096
"""kmod reads this much of the file, one byte of it for the terminator."""

_SPACE = " \n\t\v\f\r"


class Setting(NamedTuple):
    """``module`` as written; ``text`` is ``param`` or ``param=value``."""

    module: str
    text: str


class _State(Enum):
    IGNORE = auto()
    MODULE = auto()
    PARAM = auto()
    VALUE = auto()


def settings(text: str) -> list[Setting]:
    """Every ``module.param`` of a command line, in order. What does not fit the form is passed over in silence."""
    found: list[Setting] = []
    state = _State.MODULE
    quoted = False
    start = param = value = 0
    quote_moved = False
    for i, char in enumerate(text.partition("\0")[0][: MAX_SIZE - 1] + "\0"):
        if char == '"':
            quoted = not quoted
            if quoted and state is _State.MODULE and i == start:
                quote_moved, start = True, i + 1
            elif state is not _State.VALUE:
                state = _State.IGNORE
        elif char == "\0" or char in _SPACE:
            if quoted and state is _State.VALUE:
                pass
            elif quoted:
                state = _State.IGNORE
            else:
                if state in (_State.PARAM, _State.VALUE):
                    found.append(_setting(text, start, param, value if state is _State.VALUE else i, i, quote_moved))
                state, start, quote_moved = _State.MODULE, i + 1, False
        elif char == "." and state in (_State.MODULE, _State.PARAM):
            if state is _State.MODULE:
                param, state = i + 1, _State.PARAM
            else:
                state = _State.IGNORE
        elif char == "=" and state in (_State.MODULE, _State.PARAM):
            if state is _State.PARAM:
                value, state = i + 1, _State.VALUE
            else:
                state = _State.IGNORE
    return found


def _setting(text: str, start: int, param: int, value: int, end: int, quote_moved: bool) -> Setting:
    said = text[param:value] + ('"' if quote_moved else "") + text[value:end]
    return Setting(text[start : param - 1], said)


def add_cmdline(text: str, config: Config, name: str = "/proc/cmdline") -> None:
    """Add what the command line says as options and blacklists, after those of the files."""
    place = Place(name, 1)
    for setting in settings(text):
        if setting.module == "modprobe" and setting.text.startswith("blacklist="):
            listed = setting.text.removeprefix("blacklist=")
            config.blacklists.extend(Blacklist(word, place) for word in listed.split(","))
            continue
        module = normal_alias(setting.module)
        if module is None:
            said = f"Ignoring bad option on kernel command line while parsing module name: '{setting.module}'"
            config.complaints.append(Complaint(place, said, "kcmdline_parse_result"))
        else:
            config.options.append(Options(module, setting.text.replace("\t", " "), place))


def kernel_blacklist(text: str) -> list[str]:
    """The names in ``module_blacklist=``: the kernel itself refuses them with EPERM, however they are loaded."""
    names: list[str] = []
    for word in text.split():
        key, found, value = word.partition("=")
        if found and key.replace("-", "_") == "module_blacklist":
            names = [name.replace("-", "_") for name in value.strip('"').split(",") if name]
    return names
