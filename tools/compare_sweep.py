"""Compare a sweep with the recorded sweep of a real machine: how many modules agree, and what kind of difference the
others show.

    kobox sweep --image R --append "console=ttyS0 loglevel=5 log_buf_len=4M" --json > sweep.json
    python -m tools.compare_sweep sweep.json GOLDEN.json [--show N] [--json]

Four things are compared: load result, unload result, what was registered, log. What cannot be the same on two machines
is made equal first: dynamic device numbers, addresses, numbers in log lines. A difference gets a class by rules about
the two answers alone; there is no list of modules anywhere. The exit status is 0 when at least 99 % agree in load and
unload result.
"""

from __future__ import annotations

import argparse
import errno
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

GOAL = 0.99
_ASPECTS = ("load", "unload", "registered", "log")
_DYNAMIC_MAJORS = (range(234, 255), range(384, 512))
"""Where the kernel takes free major numbers from (include/linux/fs.h)."""
_NUMBER = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\d+(?:\.\d+)?", re.IGNORECASE)
_CUT = re.compile(r"^\.\.\.\+\d+$")
_RECORDED_LINES = 6

Module = dict[str, Any]


class Difference(NamedTuple):
    """Of one module: in which respect, what kind, and the two answers."""

    aspect: str
    kind: str
    module: str
    ours: str
    theirs: str


def compare(ours: dict[str, Module], theirs: dict[str, Module]) -> list[Difference]:
    """Every difference of the modules that both have."""
    return [found for name in sorted(ours.keys() & theirs.keys()) for found in _of(name, ours[name], theirs[name])]


def _of(name: str, our: Module, their: Module) -> Iterator[Difference]:
    if our.get("load_errno") != their.get("load_errno"):
        yield Difference("load", _load_kind(our, their), name, _told(our, "load"), _told(their, "load"))
        return  # the rest follows from it
    if our.get("unload_errno") != their.get("unload_errno"):
        yield Difference("unload", "unload result", name, _told(our, "unload"), _told(their, "unload"))
    came, missed = _registered(our, their)
    if came or missed:
        kinds = sorted({kind for kind, _ in came | missed})
        kind = _asked_kind(our, their) or ", ".join(kinds)
        yield Difference("registered", kind, name, _names(came), _names(missed))
    our_log, their_log = _log(our), _log(their)
    if our_log != their_log:
        only = [line for line in our_log if line not in their_log], [line for line in their_log if line not in our_log]
        yield Difference("log", _log_kind(our, their, *only), name, " | ".join(only[0]), " | ".join(only[1]))


def _told(module: Module, step: str) -> str:
    number = module.get(f"{step}_errno")
    return "no answer" if number is None else errno.errorcode.get(number, "0")


def _load_kind(our: Module, their: Module) -> str:
    """By what the two say of the load."""
    if our.get("error"):
        return "error of kobox"
    if "load_errno" not in their:
        return "the recorded machine gave up"
    return _asked_kind(our, their) or f"{_told(our, 'load')} instead of {_told(their, 'load')}"


def _asked_kind(our: Module, their: Module) -> str:
    """Whether the recorded machine loaded modules that were asked for, and without them answered as we do."""
    asked = their.get("request_module") or their.get("dep_request_module") or their.get("autoloaded")
    without = their.get("no_modprobe")
    if asked and without is not None and not our.get("autoloaded"):
        return "modules that the kernel asked for were not there"
    return ""


def _registered(our: Module, their: Module) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """What only we registered, what only the recorded machine did; lists that it cut short count as far as they go."""
    sides: list[set[tuple[str, str]]] = []
    cut = {kind for kind, names in (their.get("registered") or {}).items() if any(map(_CUT.match, names))}
    for module in (our, their):
        found = (module.get("registered") or {}).items()
        sides.append({(kind, _plain(kind, name)) for kind, names in found for name in names if not _CUT.match(name)})
    return {entry for entry in sides[0] - sides[1] if entry[0] not in cut}, sides[1] - sides[0]


def _plain(kind: str, name: str) -> str:
    """Without numbers that depend on what came before."""
    number, _, rest = name.partition(" ")
    if kind in ("chrdev", "blkdev") and number.isdigit() and any(int(number) in majors for majors in _DYNAMIC_MAJORS):
        return f"* {rest}"
    if kind == "misc":
        return rest
    if kind in ("kthread", "iomem", "ioports") or (rest == "" and name.startswith("input/")):
        return _NUMBER.sub("#", name)
    return name


def _names(entries: set[tuple[str, str]]) -> str:
    return " ".join(f"{kind}:{name}" for kind, name in sorted(entries)[:6])


def _log(module: Module) -> list[str]:
    """The lines that the record keeps, made comparable."""
    lines = module.get("log", ())[:_RECORDED_LINES]
    return [_NUMBER.sub("#", text.replace("\\x0a", "\n").replace("\\x09", "\t")).strip() for _, text in lines]


def _log_kind(our: Module, their: Module, ours: list[str], theirs: list[str]) -> str:
    kind = _asked_kind(our, their)
    if kind:
        return kind
    if not ours and not theirs:
        return "the same lines in another order or number"
    if not theirs:
        return "more lines"
    return "fewer lines" if not ours else "other lines"


def report(ours: dict[str, Module], theirs: dict[str, Module], show: int) -> dict[str, Any]:
    """Counts by respect and class, with the first ``show`` differences of each."""
    differences = compare(ours, theirs)
    common = ours.keys() & theirs.keys()
    classes: dict[str, dict[str, list[Difference]]] = {aspect: defaultdict(list) for aspect in _ASPECTS}
    for found in differences:
        classes[found.aspect][found.kind].append(found)
    differ = {found.module for found in differences if found.aspect in ("load", "unload")}
    return {
        "compared": len(common),
        "only_ours": sorted(ours.keys() - theirs.keys()),
        "only_theirs": sorted(theirs.keys() - ours.keys()),
        "agree": {
            aspect: len(common) - sum(map(len, classes[aspect].values())) for aspect in _ASPECTS
        } | {"load and unload": len(common) - len(differ)},
        "errors": sorted(name for name in common if ours[name].get("error")),
        "hangs": sorted(name for name in common if ours[name].get("hang")),
        "classes": {
            aspect: {
                kind: {
                    "modules": len(found),
                    "shown": [{"module": one.module, "ours": one.ours, "theirs": one.theirs} for one in found[:show]],
                }
                for kind, found in sorted(kinds.items(), key=lambda item: -len(item[1]))
            }
            for aspect, kinds in classes.items()
        },
    }  # fmt: skip


def _print(found: dict[str, Any]) -> None:
    total = found["compared"]
    print(f"{total} modules compared; only ours: {len(found['only_ours'])}, only theirs: {len(found['only_theirs'])}")
    for aspect, count in found["agree"].items():
        print(f"  {aspect:<16} {count:5} agree, {100 * count / max(1, total):6.2f} %")
    for name in ("errors", "hangs"):
        print(f"  {name}: {len(found[name])} {' '.join(found[name][:20])}")
    for aspect, kinds in found["classes"].items():
        for kind, facts in kinds.items():
            print(f"{aspect}: {kind}: {facts['modules']}")
            for one in facts["shown"]:
                print(f"    {one['module']}: ours {one['ours'][:160]!r}, theirs {one['theirs'][:160]!r}")


def main() -> int:
    """Parse, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ours", type=Path, help="what kobox sweep --json printed")
    parser.add_argument("theirs", type=Path, help="the recorded sweep")
    parser.add_argument("--show", type=int, default=3, metavar="N", help="differences to show of each class")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    ours, theirs = (json.loads(path.read_text())["modules"] for path in (args.ours, args.theirs))
    found = report(ours, theirs, args.show)
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        _print(found)
    return 0 if found["agree"]["load and unload"] >= GOAL * max(1, found["compared"]) else 1


if __name__ == "__main__":
    sys.exit(main())
