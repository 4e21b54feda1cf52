"""Comparing what a kernel did with what was recorded: the normalisers, and the differences between two steps.

What is not named in ``NORMALISERS`` is compared as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools.golden_kernel import Answer, Entry, Record, errno_name

NORMALISERS = """\
addresses       kernel addresses (0xffff..., ffff...) and the kernel's offset read 0xADDR, ADDR, as recordings have
                them; so do the value of a relocation that is refused, and the low half of a module's address as a
                number (-10xxxxxxxx), and the distance in a call that ftrace shows as bytes (e8:..:..:..:..)
process ids     in "PID: N" and "note: NAME[N] exited"
load order      the SEQNUM of uevents
Of an oops or a warning, besides:
dump values     which registers are shown, the selectors and CR4 are compared; what the others hold (the caller left
                it there), code bytes (recordings have none) and the walk of the page tables are not
call trace      kobox's loader is not in the guest: its trace is the recorded one without the kernel's functions
                between the system call's entry and what the loader calls. What the program's registers hold is not
                compared (there is no program). "? " entries are what lay on the stack before: left out
console         what a dying kernel left on its console has no levels in a recording
"""

_ADDRESS = re.compile(r"0x[89a-f][0-9a-f]{15}\b")
_BARE_ADDRESS = re.compile(r"(?<![0-9a-fx])[89a-f][0-9a-f]{15}(?![0-9a-f])")
_OFFSET = re.compile(r"(?<=^Kernel Offset: ).*")
_VALUE = re.compile(r"^(module: .* val )[0-9a-f]+$")
_LOW_HALF = re.compile(r"(?<![\d.])-10\d{8}\b")
_CALL = re.compile(r"^( (?:actual|expected): +e[89]):(?:[0-9a-f]{2}:){3}[0-9a-f]{2}$")
_PID = re.compile(r"(\bPID: |^note: [^\[]*\[)\d+")
_REGISTERS = re.compile(r"^(RSP|RAX|RDX|RBP|R10|R13|FS|CS|CR2|DR0|DR3|PKRU):")
_VALUES = re.compile(r"\b(R[A-Z0-9]{1,2}|EFLAGS|ORIG_RAX|CR[023]|DR\d|PKRU|FS|GS|knlGS):( *)(?:[0-9a-f]{5,}|ADDR)")
_STACK_POINTER = re.compile(r"^RSP: ([0-9a-f]{4}):\S+")
_CODE = re.compile(r"^Code: (?:[0-9a-f<]|BYTES).*")
_PAGE_WALK = re.compile(r"^PGD \S+.*")
_USER_MODE = "RIP: 0033:"
_STACK_ENTRY = re.compile(r"^ (\? )?([\w.]+\+0x[0-9a-f]+/0x[0-9a-f]+( \[\S+\])?|0xADDR)$")
_TRACE_STARTS = ("<TASK>", "<IRQ>", "Call Trace:", "R13:")
"""A trace goes on behind the registers of the exception that it passes."""


def normal_text(text: str) -> str:
    text = _OFFSET.sub("ADDR", _PID.sub(r"\1N", text))
    text = _CALL.sub(r"\1:ADDR", _LOW_HALF.sub(_low_half, text))
    text = _VALUE.sub(r"\1ADDR", text)
    return _BARE_ADDRESS.sub("ADDR", _ADDRESS.sub("0xADDR", text))


def _low_half(found: re.Match[str]) -> str:
    """The low 32 bits of an address where modules lie, printed as a number."""
    return "ADDR" if 0xC000_0000 <= int(found[0]) & 0xFFFF_FFFF < 0xC400_0000 else found[0]


def normal_log(records: Iterable[Record], with_traces: bool = False) -> list[tuple[int | None, str]]:
    """Log lines as they are compared. Without traces, the entries of call traces are left out."""
    kept: list[tuple[int | None, str]] = []
    in_user_mode = False
    for record in records:
        text = normal_text(record.text)
        is_register = bool(_REGISTERS.match(text)) or text.startswith("Code: ")
        in_user_mode = text.startswith(_USER_MODE) or (in_user_mode and is_register)
        entry = _STACK_ENTRY.match(text)
        if in_user_mode or (entry and (entry[1] or not with_traces)):
            continue
        if is_register:
            text = _VALUES.sub(r"\1:\2VALUE", _STACK_POINTER.sub(r"RSP: \1:ADDR", _CODE.sub("Code: BYTES", text)))
        kept.append((record.level, _PAGE_WALK.sub("PGD WALK", text)))
    return kept


def shorten_traces(wanted: Sequence[tuple[int | None, str]], got: Sequence[tuple[int | None, str]]) -> list[Any]:
    """``wanted`` with ``got``'s call traces, where they are the same but for a gap above the last entry."""
    shown = iter(_traces(got))
    cut: list[tuple[int | None, str]] = []
    for is_trace, lines in _blocks(wanted):
        other = next(shown, None) if is_trace else None
        cut += other if other and [*lines[: len(other) - 1], *lines[-1:]] == other else lines
    return cut


def _traces(log: Sequence[tuple[int | None, str]]) -> list[list[tuple[int | None, str]]]:
    return [lines for is_trace, lines in _blocks(log) if is_trace]


def _blocks(log: Sequence[tuple[int | None, str]]) -> Iterator[tuple[bool, list[tuple[int | None, str]]]]:
    """Runs of lines: those of a call trace (perhaps none) behind each line that says so, and the others."""
    lines: list[tuple[int | None, str]] = []
    in_trace = False
    for line in log:
        if in_trace and not _STACK_ENTRY.match(line[1]):
            yield True, lines
            lines, in_trace = [], False
        lines.append(line)
        if line[1].strip().startswith(_TRACE_STARTS):
            yield False, lines
            lines, in_trace = [], True
    yield in_trace, lines


def normal_uevents(messages: Iterable[Iterable[str]]) -> list[list[str]]:
    return [[line for line in message if not line.startswith("SEQNUM=")] for message in messages]


def normal_entry(entry: Entry) -> Entry:
    content = entry.content
    if content is not None:
        content = normal_text(content.decode("latin-1")).encode("latin-1")
    return Entry(entry.type, entry.mode, content, entry.target, entry.read_errno)


def recorded_entry(raw: Mapping[str, Any]) -> Entry:
    """An entry of a recording's sysfs or tree."""
    content = None
    if "content" in raw:
        content = raw["content"].encode("latin-1", "surrogateescape")
    elif "content_hex" in raw:
        content = bytes.fromhex(raw["content_hex"])
    mode = int(raw["mode"], 8) if "mode" in raw else None
    number = raw.get("read_errno")
    return Entry(raw["type"], mode, content, raw.get("target"), number)


def tree_delta(before: Mapping[str, Entry], after: Mapping[str, Entry]) -> tuple[dict[str, Entry], list[str]]:
    """What is new or changed, and the topmost names that are gone."""
    changed = {path: entry for path, entry in after.items() if before.get(path) != entry}
    gone = sorted(path for path in before if path not in after)
    roots: list[str] = []
    for path in gone:
        if not any(path.startswith(root + "/") for root in roots):
            roots.append(path)
    return changed, roots


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything seen of one step, as a recording has it."""

    answer: Answer
    tainted_before: int | None
    tainted_after: int | None
    log: list[Record]
    uevents: list[list[str]]
    proc_modules: list[str] | None
    sysfs: dict[str, Entry]
    removed: list[str]
    tree: dict[str, Entry] | None = None
    kallsyms: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """``field`` of step number ``step`` (from 1) is ``got``, where ``wanted`` was recorded."""

    step: int
    action: str
    field: str
    wanted: str
    got: str

    def __str__(self) -> str:
        return f"step {self.step} {self.action}: {self.field}: recorded {self.wanted}, got {self.got}"


def compare_step(number: int, step: Mapping[str, Any], seen: Observed) -> list[Difference]:
    """Every difference between a recorded step and what was seen of it."""
    found: list[Difference] = []

    def check(field: str, wanted: object, got: object) -> None:
        if wanted != got:
            found.append(Difference(number, step["action"], field, repr(wanted), repr(got)))

    died = bool(step.get("guest_died") or step.get("guest_hung"))
    answer = seen.answer
    check("tainted_before", step["tainted_before"], seen.tainted_before)
    check("kernel died", died, answer.died)
    check("killed_by_signal", step.get("killed_by_signal"), answer.killed_by)
    check("hung", bool(step.get("hung")), answer.hung)
    check("dmesg", *_logs(step, seen, with_levels="dmesg_from" not in step))
    if died or answer.died:
        return found
    check("errno", step["errno"], answer.errno_name if _returned(answer) else None)
    check("ret", step["ret"], _returned_value(answer))
    if "output" in step:
        got = None if answer.output is None else normal_text(answer.output.decode("latin-1"))
        check("output", normal_text(step["output"]), got)
    if "value" in step:
        check("value", step["value"], answer.value)
    if "tree" in step:
        wanted_tree = {path: normal_entry(recorded_entry(raw)) for path, raw in step["tree"].items()}
        found += _entries(number, step["action"], "tree", wanted_tree, seen.tree or {})
    if "kallsyms" in step:
        check("kallsyms", step["kallsyms"], [normal_text(line) for line in seen.kallsyms or []])
    check("uevents", normal_uevents(step.get("uevents", [])), normal_uevents(seen.uevents))
    if step["proc_modules"] is not None or step.get("modules_locked"):
        modules = None if seen.proc_modules is None else [normal_text(line) for line in seen.proc_modules]
        check("proc_modules", None if step.get("modules_locked") else step["proc_modules"], modules)
    if step.get("sysfs_kind") in ("full", "delta"):
        wanted_sysfs = {path: normal_entry(recorded_entry(raw)) for path, raw in step["sysfs"].items()}
        found += _entries(number, step["action"], "sysfs", wanted_sysfs, seen.sysfs)
        if step["sysfs_kind"] == "delta":
            check("sysfs removed", step.get("sysfs_removed_roots", []), seen.removed)
    check("tainted_after", step["tainted_after"], seen.tainted_after)
    return found


def _entries(
    number: int, action: str, field: str, wanted: Mapping[str, Entry], got: Mapping[str, Entry]
) -> list[Difference]:
    found = []
    for path in sorted(wanted.keys() | got.keys()):
        left = wanted.get(path)
        right = normal_entry(got[path]) if path in got else None
        if left != right:
            found.append(Difference(number, action, f"{field} {path}", _entry_text(left), _entry_text(right)))
    return found


def _entry_text(entry: Entry | None) -> str:
    if entry is None:
        return "nothing"
    if entry.type == "link":
        return f"link to {entry.target}"
    parts = [entry.type]
    if entry.mode is not None:
        parts.append(f"{entry.mode:04o}")
    if entry.content is not None:
        parts.append(repr(entry.content))
    if entry.read_errno is not None:
        parts.append(f"read answers {errno_name(entry.read_errno)}")
    return " ".join(parts)


def _logs(step: Mapping[str, Any], seen: Observed, with_levels: bool) -> tuple[object, object]:
    got = normal_log(seen.log, with_traces=True)
    recorded = normal_log((Record(line.get("level"), line["text"]) for line in step["dmesg"]), with_traces=True)
    wanted = shorten_traces(recorded, got if with_levels else [(None, text) for _, text in got])
    if with_levels:
        return wanted, got
    return [text for _, text in wanted], [text for _, text in got]


def _returned(answer: Answer) -> bool:
    return answer.killed_by is None and not answer.hung and answer.value is not None


def _returned_value(answer: Answer) -> int | None:
    """What the C library's wrapper returned: -1 for an error the kernel names, -2 where the recorder could not open."""
    if not _returned(answer) or answer.value is None:
        return None
    if not answer.opened:
        return -2
    return -1 if -4095 <= answer.value < 0 else answer.value
