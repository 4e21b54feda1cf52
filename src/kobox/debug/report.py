"""The report for people, and the same as plain data for JSON: what, where in the source, why, and the trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kobox.abi import syscalls, taint
from kobox.abi.traps import NO_SYSCALL
from kobox.debug.disasm import with_instructions
from kobox.debug.explain import Explanation, culprit, explain
from kobox.debug.klog import code_line, frame_text
from kobox.debug.records import (
    Access,
    Frame,
    Instruction,
    Kind,
    Oops,
    Registers,
    RegsFrame,
    SourceLine,
    StackMark,
    Symbol,
    TraceItem,
)
from kobox.debug.taint_report import taint_data

if TYPE_CHECKING:
    from kobox.debug.sources import Sources

_AROUND = 4


@dataclass(frozen=True, slots=True)
class Report:
    """A crash with everything that is known about it."""

    oops: Oops
    explanation: Explanation
    access: Access | None = None
    module: str | None = None
    excerpt: tuple[tuple[int, str], ...] = ()
    notes: tuple[str, ...] = field(default=())


def make_report(oops: Oops, sources: Sources | None = None) -> Report:
    """Look everything up that the sources know; without any, only the code bytes are decoded."""
    if sources is None:
        oops = with_instructions(oops)
        return Report(oops, explain(oops), None, culprit(oops))
    already = len(sources.notes)
    oops = sources.annotate(oops)
    access = sources.access(oops)
    place = _first_source(oops)
    excerpt = tuple(sources.excerpt(place)) if place else ()
    return Report(oops, explain(oops, access), access, culprit(oops), excerpt, tuple(sources.notes[already:]))


def _first_source(oops: Oops) -> SourceLine | None:
    """Where to look first: the fault itself, else the nearest caller whose source is known."""
    if oops.source:
        return oops.source[0]
    return next((frame.source[0] for frame in oops.frames if frame.reliable and frame.source), None)


def render(report: Report) -> str:
    """The report as text, ending in a newline."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    oops = report.oops
    if oops.kind is not Kind.PLACES:
        yield oops.title
    yield from _fact("where", _where(oops))
    yield from _source(report)
    yield from _fact("what", report.explanation.what)
    yield from _fact("cause", *report.explanation.why)
    yield from _fact("advice", *report.explanation.advice)
    if oops.message and oops.message not in report.explanation.what:
        yield from _fact("message", *oops.message.splitlines())
    yield from _fact("task", _task(oops))
    yield from _fact("kernel", " ".join(filter(None, (oops.banner.release, oops.banner.version))))
    yield from _fact("hardware", oops.banner.hardware)
    yield from _fact("taint", *_taint(oops))
    yield from _fact("modules", " ".join(map(str, oops.modules)))
    yield from _fact("unloaded", oops.unloaded)
    yield from _fact("panic", oops.panic)
    if oops.registers:
        yield from _registers(oops.registers)
    yield from _code(oops)
    yield from _trace(oops.trace)
    for note in report.notes:
        yield f"note: {note}"


def _fact(name: str, *texts: str | None) -> Iterator[str]:
    """``name`` before the first text, the others aligned below it; nothing when there is no text."""
    label = f"{name}:"
    for text in filter(None, texts):
        yield f"  {label:<10} {text}"
        label = ""


def _where(oops: Oops) -> str | None:
    place = f" ({_chain(oops.source)})" if oops.source else ""
    return f"{oops.symbol}{place}" if oops.symbol else None


def _chain(source: Iterable[SourceLine]) -> str:
    """``file:line, inlined into caller at file:line``."""
    shown = list(source)
    first = f"{shown[0]}" + (f" in {shown[0].function}" if len(shown) > 1 else "")
    return ", inlined into ".join([first, *(f"{line.function} at {line}" for line in shown[1:])])


def _source(report: Report) -> Iterator[str]:
    place = _first_source(report.oops)
    if place is None or not report.excerpt:
        return
    width = len(str(report.excerpt[-1][0]))
    for number, text in report.excerpt:
        yield f"    {'>' if number == place.line else ' '} {number:>{width}} | {text.expandtabs(8)}".rstrip()


def _task(oops: Oops) -> str | None:
    who = oops.banner
    if who.comm is None and who.pid is None:
        return None
    parts = [
        who.comm or "?",
        f"pid {who.pid}" if who.pid is not None else "",
        f"CPU {who.cpu}" if who.cpu is not None else "",
    ]
    if who.workqueue:
        parts.append(f"workqueue {who.workqueue}")
    call = next((_system_call(item) for item in oops.trace if isinstance(item, RegsFrame)), None)
    return ", ".join(filter(None, (*parts, call)))


def _system_call(frame: RegsFrame) -> str | None:
    number = frame.registers.orig_ax
    if not frame.registers.user_mode or number == NO_SYSCALL:
        return None
    return f"in system call {number} ({syscalls.name_of(number) or 'unknown'})"


def _taint(oops: Oops) -> list[str]:
    if oops.banner.taint is None:
        return []
    return [f"{flag.letter}  {flag.meaning}" for flag in taint.decode(oops.banner.taint)] or ["none"]


def _registers(regs: Registers) -> Iterator[str]:
    yield "registers"
    values = regs.general() | {"RSP": regs.sp}
    named = [f"{name.lower().replace('r0', 'r'):>3} {value:016x}" for name, value in values.items()]
    for at in range(0, len(named), 4):
        yield "    " + "  ".join(named[at : at + 4])


def _code(oops: Oops) -> Iterator[str]:
    shown = _around_fault(oops.instructions)
    if not shown:
        if oops.code is not None and oops.code.data:
            yield code_line(oops.code)
        return
    yield "code"
    function = oops.symbol.name if oops.symbol else ""
    relative = function and (oops.registers is None or not oops.registers.ip)
    places = [f"{function}+{one.address:#x}" if relative else f"{one.address:#x}" for one in shown]
    width = max(map(len, places))
    for place, one in zip(places, shown, strict=True):
        yield f" {'=>' if one.faulting else '  '} {place:<{width}}  {one.data.hex(' '):<24} {one.text}"


def _around_fault(instructions: tuple[Instruction, ...]) -> tuple[Instruction, ...]:
    at = next((index for index, one in enumerate(instructions) if one.faulting), None)
    if at is None:
        return ()
    return instructions[max(at - _AROUND, 0) : at + _AROUND]


def _trace(trace: Iterable[TraceItem]) -> Iterator[str]:
    frames = list(trace)
    if not frames:
        return
    if any(not isinstance(item, Frame) for item in frames):
        yield "call trace"
    for item in frames:
        if isinstance(item, StackMark):
            if item.name != "TASK":
                yield f"  {'end of ' if item.end else ''}{item.name} stack"
        elif isinstance(item, RegsFrame):
            yield f"    {_context(item)}"
        else:
            source = f"  ({_chain(item.source)})" if item.source else ""
            yield f"    {frame_text(item)}{source}"


def _context(item: RegsFrame) -> str:
    if item.registers.user_mode:
        return f"user space at {item.registers.ip:#x}"
    source = f"  ({_chain(item.source)})" if item.source else ""
    return f"interrupted: {item.symbol or hex(item.registers.ip)}{source}"


def as_data(report: Report) -> dict[str, Any]:
    """The report as JSON-ready data: addresses and register values as hex text, everything unknown as null."""
    oops = report.oops
    who = oops.banner
    return {
        "kind": oops.kind.value,
        "title": oops.title,
        "module": report.module,
        "where": _place(oops.symbol, oops.source),
        "what": report.explanation.what,
        "causes": list(report.explanation.why),
        "advice": list(report.explanation.advice),
        "access": _access(report.access),
        "message": oops.message,
        "address": hex(oops.fault.address) if oops.fault else None,
        "error_code": oops.error_code,
        "number": oops.number,
        "bug_at": str(oops.bug_at) if oops.bug_at else None,
        "seconds": oops.seconds,
        "task": {"comm": who.comm, "pid": who.pid, "uid": who.uid, "cpu": who.cpu, "workqueue": who.workqueue},
        "kernel": {"release": who.release, "version": who.version, "hardware": who.hardware},
        "taint": taint_data(who.taint) if who.taint is not None else None,
        "modules": [{"name": module.name, "flags": module.flags} for module in oops.modules],
        "unloaded": oops.unloaded or None,
        "registers": _register_data(oops.registers),
        "instructions": [
            {"address": hex(one.address), "bytes": one.data.hex(), "text": one.text, "faulting": one.faulting}
            for one in oops.instructions
        ],
        "trace": [_item(item) for item in oops.trace],
        "excerpt": [{"line": number, "text": text} for number, text in report.excerpt],
        "panic": oops.panic,
        "notes": list(report.notes),
    }


def _place(symbol: Symbol | None, source: Iterable[SourceLine]) -> dict[str, Any] | None:
    if symbol is None:
        return None
    return {
        "symbol": symbol.name,
        "offset": symbol.offset,
        "size": symbol.size or None,
        "module": symbol.module,
        "source": [{"file": line.file, "line": line.line, "function": line.function} for line in source],
    }


def _access(access: Access | None) -> dict[str, Any] | None:
    if access is None:
        return None
    return {
        "variable": access.variable,
        "type": access.type_name,
        "member": access.member,
        "member_type": access.member_type,
        "offset": access.offset,
        "argument": access.argument,
        "register": access.register,
        "value": None if access.value is None else hex(access.value),
    }


def _register_data(regs: Registers | None) -> dict[str, str] | None:
    if regs is None:
        return None
    named = {name.lower(): value for name, value in regs.general().items()}
    named |= {"rsp": regs.sp, "eflags": regs.flags}
    return {name: hex(value) for name, value in named.items()} | ({"rip": hex(regs.ip)} if regs.ip else {})


def _item(item: TraceItem) -> dict[str, Any]:
    if isinstance(item, StackMark):
        return {"type": "stack", "name": item.name, "end": item.end}
    if isinstance(item, RegsFrame):
        mode = "user" if item.registers.user_mode else "kernel"
        return {
            "type": "context",
            "mode": mode,
            "where": _place(item.symbol, item.source),
            "system_call": _system_call(item),
        }
    address = None if item.address is None else hex(item.address)
    return {
        "type": "frame",
        "address": address,
        "reliable": item.reliable,
        "where": _place(item.symbol, item.source),
    }
