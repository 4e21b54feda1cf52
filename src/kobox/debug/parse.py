"""Read any pasted kernel log and find the reports in it: the same records that a fault in the guest makes.

Tables of patterns drive it: ``TITLES`` begin a report, ``_BODY`` lines add to the current one. Text that is neither
is passed over, so that noise between the lines does no harm.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from kobox.abi import taint
from kobox.abi.traps import PF
from kobox.debug.draft import PAGE_FAULTS, Draft, Inner
from kobox.debug.pasted import strip_prefix
from kobox.debug.records import Code, Frame, Kind, LinkedIn, Oops, StackMark
from kobox.debug.titles import DIE, SYMBOL, TITLES, kind_of_die, number_of, symbol_of


def parse_log(text: str | Iterable[str]) -> list[Oops]:
    """Every report in a log, in order. Lines may carry the prefixes of dmesg, journald, syslog, serial or mail."""
    reader = _Reader()
    for line in text.splitlines() if isinstance(text, str) else text:
        reader.feed(strip_prefix(line))
    return reader.finish()


def parse_symbols(text: str) -> list[Oops]:
    """Bare places such as ``hello_init+0x18/0x40 [hello]``, wherever they stand: one record that lists them."""
    found = [symbol_of(match.groupdict()) for match in re.finditer(SYMBOL, text)]
    frames = tuple(Frame(None, symbol) for symbol in found if symbol)
    return [Oops(Kind.PLACES, "places", trace=frames)] if frames else []


class _Reader:
    """One pass over the lines."""

    def __init__(self) -> None:
        self.done: list[Draft] = []
        self.current: Draft | None = None
        self.cut: list[str] | None = None  # lines since "cut here", until a title claims them
        self.previous = ""

    def feed(self, line: str) -> None:
        if "[ cut here ]" in line:
            self._close()
            self.cut = []
            return
        for pattern, make in TITLES:
            found = pattern.search(line)
            if found:
                self._begin(make(found), line)
                return
        die = DIE.match(line)
        if die:
            self._die(die)
            return
        if self._body(line) or not line.strip():
            return
        self.previous = line.strip()
        if self.cut is not None and len(self.cut) < _LONGEST_MESSAGE:
            self.cut.append(self.previous)

    def finish(self) -> list[Oops]:
        self._close()
        return [draft.finish() for draft in self.done]

    def _close(self) -> None:
        if self.current is not None:
            self.done.append(self.current)
        self.current = None
        self.cut = None

    def _begin(self, draft: Draft, line: str) -> None:
        current = self.current
        if draft.kind is Kind.PANIC and current is not None:
            if current.kind is not Kind.PANIC and not current.panic:
                current.panic = draft.message[0] if draft.message else ""
                current.ended = True
                return
            if current.kind is Kind.PANIC:
                return
        follows = current is not None and not current.has_body and not current.ended
        if follows and current is not None and _prefers(current.kind, draft.kind):
            current.message.append(draft.title)
            return
        if follows and current is not None and _prefers(draft.kind, current.kind):
            draft.message = [current.title, *current.message, *draft.message]
            draft.nx_page |= current.nx_page
            self.current, self.cut = draft, None
            return
        message = self.cut or []
        self._close()
        draft.message = [*message, *draft.message]
        self.current = draft

    def _die(self, found: re.Match[str]) -> None:
        description = found["what"].removeprefix("Oops: ") if found["what"] != "Oops: Oops" else "Oops"
        draft = self.current
        if draft is None or draft.died or draft.ended or draft.kind not in _DIES:
            kind, address = kind_of_die(description)
            message = self.cut or []
            self._close()
            draft = self.current = Draft(kind, description, address=address, message=message)
        draft.died = True
        draft.description = description
        draft.error_code = int(found["code"], 16)
        draft.number = int(found["number"])
        draft.die_flags = found["flags"].strip()
        if draft.kind in (Kind.NULL_DEREFERENCE, Kind.PAGE_FAULT) and draft.error_code & PF.INSTR:
            draft.kind = Kind.BAD_EXECUTE

    def _body(self, line: str) -> bool:
        """A line that belongs to a report, whichever is current; whether it was one."""
        for pattern, add in _BODY:
            found = pattern.search(line)
            if not found:
                continue
            if self.current is None and pattern in _STARTS_DUMP:
                self.current = Draft(Kind.STACK_DUMP, self.previous or "stack dump")
                self.cut = None
            draft = self.current
            if draft is None:
                return False
            if draft.ended:
                return True
            return add(draft, found, line)
        return False


_DIES = PAGE_FAULTS | {Kind.BUG, Kind.DOUBLE_FAULT, Kind.GENERAL_PROTECTION, Kind.MEMORY_CORRUPTION}


_LONGEST_MESSAGE = 20


def _prefers(kind: Kind, other: Kind) -> bool:
    """Whether of two titles in a row the first-named kind is the report and the other only part of its text."""
    if other is Kind.MEMORY_CORRUPTION and kind in (Kind.BUG, Kind.WARNING):
        return True
    return kind in PAGE_FAULTS and other is Kind.BAD_EXECUTE and kind is not other


def _add_error_code(draft: Draft, found: re.Match[str], line: str) -> bool:
    draft.error_code = int(found["code"], 16)
    if draft.error_code & PF.INSTR and draft.kind in (Kind.NULL_DEREFERENCE, Kind.PAGE_FAULT):
        draft.kind = Kind.BAD_EXECUTE
    return True


def _add_walk(draft: Draft, found: re.Match[str], line: str) -> bool:
    draft.walk = tuple(
        (level, int(entry, 16)) for level, entry in re.findall(r"(PGD|P4D|PUD|PMD|PTE) ([0-9a-f]+)", line)
    )
    return True


_IDENTITY = re.compile(
    r"CPU: (?P<cpu>\d+) (?:UID: (?P<uid>\d+) )?PID: (?P<pid>\w+) Comm: (?P<comm>.*?) "
    r"(?:Kdump: loaded )?(?P<state>Not tainted|Tainted:)(?P<rest>.*)$"
)


def _add_identity(draft: Draft, found: re.Match[str], line: str) -> bool:
    if draft.banner.release is not None:
        return True
    rest = found["rest"].strip()
    release = re.search(r"(?<!\S)\d+\.\d+\S*", rest)
    draft.banner = replace(
        draft.banner,
        cpu=int(found["cpu"]),
        uid=number_of(found["uid"]),
        pid=number_of(found["pid"]),
        comm=found["comm"],
        taint=taint.parse_text(found["state"] + (rest[: release.start()] if release else rest).rjust(len(rest) + 1)),
        release=release[0] if release else "",
        version=rest[release.end() :].strip() if release else "",
    )
    return True


def _add_verbose_taint(draft: Draft, found: re.Match[str], line: str) -> bool:
    draft.banner = replace(draft.banner, taint=(draft.banner.taint or 0) | (taint.parse_text(line) or 0))
    return True


def _add_hardware(draft: Draft, found: re.Match[str], line: str) -> bool:
    draft.banner = replace(draft.banner, hardware=found["hardware"].strip())
    return True


def _add_workqueue(draft: Draft, found: re.Match[str], line: str) -> bool:
    draft.banner = replace(draft.banner, workqueue=found["workqueue"].strip())
    return True


def _add_rip(draft: Draft, found: re.Match[str], line: str) -> bool:
    symbol = symbol_of(found.groupdict())
    values = {}
    if found["cs"]:
        values["CS"] = int(found["cs"], 16)
    if found["bare"]:
        values["RIP"] = int(found["bare"], 16)
    if draft.in_trace:
        draft.close_inner()
        draft.inner = Inner(symbol, values)
    elif not draft.has_rip:
        draft.has_rip = True
        draft.symbol = symbol or draft.symbol
        draft.values |= values
    return True


def _add_registers(draft: Draft, found: re.Match[str], line: str) -> bool:
    target = draft.inner.values if draft.inner is not None else draft.values
    stack = re.match(r"\s*RSP: ([0-9a-f]{4}):([0-9a-f]+)\s+EFLAGS: ([0-9a-f]+)", line)
    if stack:
        named = {"SS": stack[1], "RSP": stack[2], "EFLAGS": stack[3]}
        target.update({name: int(text, 16) for name, text in named.items()})
    for name, text in re.findall(r"\b(R[A-Z]{2}|R\d\d|ORIG_RAX): ?([0-9a-f]{16})\b", line):
        target.setdefault(name, int(text, 16))
    return True


def _add_control(draft: Draft, found: re.Match[str], line: str) -> bool:
    if draft.in_trace:
        return True
    for name, text in re.findall(r"\b(FS|GS|knlGS|DS|ES|CR[0234]): *([0-9a-f]{4,16})\b", line):
        draft.control.setdefault(name, int(text, 16))
    return True


def _add_code(draft: Draft, found: re.Match[str], line: str) -> bool:
    words = found["bytes"].split()
    marked = next((index for index, word in enumerate(words) if word.startswith("<")), None)
    data = None
    if marked is not None and all(re.fullmatch(r"<?[0-9a-f]{2}>?", word) for word in words):
        data = bytes(int(word.strip("<>"), 16) for word in words)
    code = Code(0, data, marked or 0)
    if draft.inner is not None:
        draft.inner.code = code
    elif draft.code is None and not draft.in_trace:
        draft.code = code
    return True


def _begin_trace(draft: Draft, found: re.Match[str], line: str) -> bool:
    if draft.trace and not draft.in_trace:
        return True
    draft.in_trace = True
    return True


def _add_mark(draft: Draft, found: re.Match[str], line: str) -> bool:
    if not draft.in_trace:
        return False
    draft.close_inner()
    draft.trace.append(StackMark(found["name"], end=bool(found["end"])))
    return True


def _add_frame(draft: Draft, found: re.Match[str], line: str) -> bool:
    if not draft.in_trace:
        return False
    draft.close_inner()
    address = found["address"] or found["bare"]
    draft.trace.append(
        Frame(int(address, 16) if address else None, symbol_of(found.groupdict()), reliable=not found["doubt"])
    )
    return True


def _add_modules(draft: Draft, found: re.Match[str], line: str) -> bool:
    draft.close_inner()
    listed, _, unloaded = found["modules"].partition("[last unloaded:")
    draft.modules = tuple(
        LinkedIn(name, flags) for name, flags in re.findall(r"([\w-]+|(?=\())(?:\(([^)\s]*)\))?", listed)
    )
    draft.unloaded = unloaded.strip(" ]")
    if draft.in_trace:  # a crash lists its modules behind the trace
        draft.in_trace = False
    return True


def _end(draft: Draft, found: re.Match[str], line: str) -> bool:
    draft.close_inner()
    draft.ended = True
    return True


def _add_cr2(draft: Draft, found: re.Match[str], line: str) -> bool:
    if draft.address is None and draft.kind in PAGE_FAULTS:
        draft.address = int(found["cr2"], 16)
    return True


_FRAME = re.compile(
    r"^\s*(?:\[<(?P<address>[0-9a-f]{8,16})>\]\s*)?(?P<doubt>\? )?\s*(?:" + SYMBOL + r"|(?P<bare>0x[0-9a-f]+))"
    r"(?:\s*\((?:[A-Z]+|[\w./-]+)\))?\s*$"
)
_TRACE_BEGINS = re.compile(r"^\s*(?:Call Trace|Call trace|Backtrace):")
_BodyRule = tuple[re.Pattern[str], Callable[[Draft, re.Match[str], str], bool]]
_BODY: tuple[_BodyRule, ...] = (
    (re.compile(r"---\[ end (?:trace|Kernel panic)"), _end),
    (re.compile(r"#PF: error_code\((?P<code>0x[0-9a-f]+)\)"), _add_error_code),
    (re.compile(r"^\s*PGD [0-9a-f]+"), _add_walk),
    (_IDENTITY, _add_identity),
    (re.compile(r"^\s*Tainted: \["), _add_verbose_taint),
    (re.compile(r"Hardware name: (?P<hardware>.*)"), _add_hardware),
    (re.compile(r"^\s*Workqueue: (?P<workqueue>.*)"), _add_workqueue),
    (
        re.compile(
            r"^\s*(?:RIP: (?P<cs>[0-9a-f]{4}):|e?pc : )\s*(?:\[<[0-9a-f]+>\]\s*)*"
            r"(?:" + SYMBOL + r"|(?P<bare>0x[0-9a-f]+)|\S*)"
        ),
        _add_rip,
    ),
    (re.compile(r"^\s*Code: (?P<bytes>.*)"), _add_code),
    (re.compile(r"^\s*(?:RSP|RAX|RDX|RBP|R10|R13): "), _add_registers),
    (re.compile(r"^\s*CR2: (?P<cr2>[0-9a-f]{16})\s*$"), _add_cr2),
    (re.compile(r"^\s*(?:FS:|CS:|CR2:|DR[03]:)"), _add_control),
    (_TRACE_BEGINS, _begin_trace),
    (re.compile(r"^\s*<(?P<end>/)?(?P<name>[A-Z_]+)>\s*$"), _add_mark),
    (re.compile(r"^\s*Modules linked in:(?P<modules>.*)"), _add_modules),
    (_FRAME, _add_frame),
)
_STARTS_DUMP = frozenset({_IDENTITY})
"""A trace that no title announced begins with its CPU line."""
