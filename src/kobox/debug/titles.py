"""How reports of the kernel begin: one pattern a title, in old and new wording, with or without its numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from kobox.debug.draft import Draft
from kobox.debug.records import Banner, Kind, SourceLine, Symbol

SYMBOL = (
    r"(?P<name>[A-Za-z_.$][\w.$]*)\+(?P<offset>0x[0-9a-f]+)(?:/(?P<size>0x[0-9a-f]+))?"
    r"(?: \[(?P<module>[\w-]+)(?: [0-9a-f]+)?\])?"
)
"""``name+0xoffset/0xsize [module]``, perhaps with the module's build id."""
_WHERE = r"(?P<file>[^\s:]+):(?P<line>\d+)"
_ADDRESS = r"(?:(?P<address>(?:0x)?[0-9a-f]+)\b|\S+)"
"""An address, or whatever someone who made the log anonymous put in its place."""


def _draft(kind: Kind) -> Callable[[re.Match[str]], Draft]:
    def make(found: re.Match[str]) -> Draft:
        draft = Draft(kind, found.string.strip())
        groups = found.groupdict()
        if groups.get("address"):
            draft.address = int(groups["address"], 16)
        if groups.get("file"):
            draft.bug_at = SourceLine(groups["file"], int(groups["line"]))
        if groups.get("seconds"):
            draft.seconds = int(groups["seconds"])
        draft.symbol = symbol_of(groups)
        draft.banner = Banner(
            cpu=number_of(groups.get("cpu")), pid=number_of(groups.get("pid")), comm=groups.get("comm") or None
        )
        return draft

    return make


def _nx(found: re.Match[str]) -> Draft:
    return replace(_draft(Kind.BAD_EXECUTE)(found), nx_page=True)


def _panic(found: re.Match[str]) -> Draft:
    return replace(_draft(Kind.PANIC)(found), message=[found["why"].strip()])


def number_of(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def symbol_of(groups: dict[str, str | None]) -> Symbol | None:
    name, offset = groups.get("name"), groups.get("offset")
    if not name or not offset:
        return None
    return Symbol(name, int(offset, 16), int(groups.get("size") or "0", 16), groups.get("module"))


_WORDING: tuple[tuple[str, Callable[[re.Match[str]], Draft]], ...] = (
    (
        r"BUG: (?:unable to handle )?kernel NULL pointer dereference(?:, address:| at) " + _ADDRESS,
        _draft(Kind.NULL_DEREFERENCE),
    ),
    (
        r"BUG: unable to handle (?:page fault for address:|kernel paging request at) " + _ADDRESS,
        _draft(Kind.PAGE_FAULT),
    ),
    (r"kernel tried to execute NX-protected page", _nx),
    (r"unable to execute userspace code \(SMEP\?\)", _draft(Kind.BAD_EXECUTE)),
    (r"kernel BUG at " + _WHERE + "!", _draft(Kind.BUG)),
    (r"Kernel BUG at " + SYMBOL, _draft(Kind.BUG)),
    (r"WARNING: CPU: (?P<cpu>\d+) PID: (?P<pid>\w+) at (?:" + _WHERE + r" )?" + SYMBOL, _draft(Kind.WARNING)),
    (
        r"WARNING: " + _WHERE + " at " + SYMBOL + r"(?:, CPU#(?P<cpu>\d+): (?P<comm>.+?)/(?P<pid>\d+))?",
        _draft(Kind.WARNING),
    ),
    (
        r"BUG: soft lockup - CPU#(?P<cpu>\d+) stuck for (?P<seconds>\d+)s! \[(?P<comm>.+?):(?P<pid>\w+)\]",
        _draft(Kind.SOFT_LOCKUP),
    ),
    (r"[Ww]atchdog detected hard LOCKUP on cpu (?P<cpu>\d+)", _draft(Kind.HARD_LOCKUP)),
    (
        r"INFO: task (?P<comm>\S+?):(?P<pid>\d+) (?:<\w+> )?blocked (?:in I/O wait )?"
        r"for more than (?P<seconds>\d+) seconds",
        _draft(Kind.HUNG_TASK),
    ),
    (r"INFO: rcu_\w+ (?:self-)?detected (?:expedited )?stalls?", _draft(Kind.RCU_STALL)),
    (r"BUG: scheduling while atomic: (?P<comm>.+)/(?P<pid>\d+)/0x", _draft(Kind.SCHEDULING_WHILE_ATOMIC)),
    (r"BUG: sleeping function called from invalid context at " + _WHERE, _draft(Kind.SLEEPING_IN_ATOMIC)),
    (r"BUG: (?:KASAN|KFENCE|KCSAN|KMSAN): .*? in (?:" + SYMBOL + r"|\S+)", _draft(Kind.SANITIZER)),
    (r"UBSAN: .* in " + _WHERE, _draft(Kind.SANITIZER)),
    (r"BUG [\w-]+ \((?:Not tainted|Tainted:[^)]*)\): ", _draft(Kind.MEMORY_CORRUPTION)),
    (r"BUG: Bad (?:page state|page map|rss-counter state)", _draft(Kind.MEMORY_CORRUPTION)),
    (r"\blist_(?:add|del) corruption\b", _draft(Kind.MEMORY_CORRUPTION)),
    (
        r"WARNING: (?:inconsistent lock state|bad unlock balance|suspicious RCU usage|possible (?:recursive locking"
        r"|circular locking dependency|irq lock inversion dependency))",
        _draft(Kind.LOCKDEP),
    ),
    (r"BUG: (?:\w+ )?stack guard page was hit at " + _ADDRESS, _draft(Kind.STACK_OVERFLOW)),
    (r"PANIC: double fault", _draft(Kind.DOUBLE_FAULT)),
    (r"Kernel panic - not syncing: (?P<why>.*)", _panic),
)
TITLES = tuple((re.compile(text), make) for text, make in _WORDING)

DIE = re.compile(
    r"^(?P<what>[A-Za-z][\w ,.:()-]*?(?: 0x[0-9a-f]+)?): (?P<code>[0-9a-f]{4}) \[#(?P<number>\d+)\](?P<flags>.*)$"
)
_DIE_KINDS: tuple[tuple[str, Kind], ...] = (
    ("general protection fault", Kind.GENERAL_PROTECTION),
    ("invalid opcode", Kind.INVALID_OPCODE),
    ("divide error", Kind.DIVIDE_ERROR),
    ("int3", Kind.INT3),
    ("stack guard page", Kind.STACK_OVERFLOW),
    ("double fault", Kind.DOUBLE_FAULT),
    ("Oops", Kind.PAGE_FAULT),
)


def kind_of_die(description: str) -> tuple[Kind, int | None]:
    address = re.search(r"address (0x[0-9a-f]+)", description)
    kind = next((kind for text, kind in _DIE_KINDS if text in description), Kind.TRAP)
    return kind, int(address[1], 16) if address else None
