"""Tracepoints, probes and trace_printk: fields from the raw records, text as the kernel itself words it.

The instance's ``trace`` file is read before its raw pages are taken out: both list the same records in the same order.
``trace_printk`` goes to the kernel's own array, among the functions; its binary form is printed by the guest's own
``bstr_printf``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from kobox.debug.tracing.names import Names
from kobox.debug.tracing.records import Event
from kobox.debug.tracing.ring import Format, PageReader
from kobox.debug.tracing.tracefs import INSTANCE, Tracefs
from kobox.kernel.guest import Guest
from kobox.kernel.syscalls import Syscalls

_LINE = re.compile(r"^.*-\d+\s+\[\d+\] \S+\s+\d+\.\d+: (.*)$")
_PRINTS = ("print", "bprint", "bputs")
_TEXT_ROOM = 4096
_IRQS = {0: ".", 1: "d", 0x80: "b", 0x81: "D"}
_RESCHED = {0: ".", 4: "n", 0x20: "p", 0x24: "N", 2: "l", 6: "b", 0x22: "L", 0x26: "B"}
"""By the flags need-resched (4), preempt-resched (0x20) and, in later kernels, need-resched-lazy (2)."""
_INTERRUPT = {0x58: "Z", 0x48: "Z", 0x50: "z", 0x40: "z", 0x18: "H", 0x08: "h", 0x10: "s", 0: "."}


def flags_text(flags: int, preempt: int) -> str:
    """The five columns that ftrace shows: interrupts off, rescheduling, interrupt, preemption and migration off."""
    return (
        _IRQS[flags & 0x81]
        + _RESCHED[flags & 0x26]
        + _INTERRUPT[flags & 0x58]
        + (f"{preempt & 15:x}" if preempt & 15 else ".")
        + (f"{preempt >> 4:x}" if preempt >> 4 else ".")
    )


class _Raw(NamedTuple):
    """An event before its task has a name."""

    time: int
    pid: int
    flags: str
    system: str
    name: str
    text: str
    fields: dict[str, Any]


class EventReader:
    """The events of one trace."""

    def __init__(self, guest: Guest, fs: Tracefs, syscalls: Syscalls, pages: PageReader, names: Names) -> None:
        self._guest, self._fs, self._sys, self._pages, self._names = guest, fs, syscalls, pages, names
        self._formats: dict[int, Format] = {}
        self._raw: list[_Raw] = []
        for name in _PRINTS:
            self.learn("ftrace", name)

    def learn(self, system: str, name: str) -> None:
        """The layout of an event that is enabled now."""
        self._take_format(system, self._fs.read(f"events/{system}/{name}/format"))

    def drain(self) -> int:
        """Take the instance's records; returns how many were lost. The arrays must be switched off."""
        lines = self._lines()
        pages = [self._pages.read(raw) for raw in self._fs.pages(INSTANCE, self._pages.size)]
        self.take([record for page in pages for record in page.records], lines)
        return sum(page.lost for page in pages)

    def take(self, records: list[tuple[int, bytes]], lines: list[str]) -> None:
        """Note records; ``lines`` are their texts, in the same order. Without them the fields stand for the text."""
        paired = len(lines) == len(records)
        for index, (time, data) in enumerate(records):
            form = self._format_of(data)
            fields = form.decode(data)
            text = lines[index].partition(": ")[2] if paired else " ".join(f"{k}={v}" for k, v in fields.items())
            self._note(form, time, data, text, fields)

    def take_print(self, time: int, data: bytes) -> None:
        """A record of the kernel's own array that is not a function's."""
        form = self._format_of(data)
        if form.name not in _PRINTS:
            return
        fields = form.decode(data)
        ip = form.field("ip")
        place = self._names.at(int.from_bytes(data[ip.offset : ip.offset + ip.size], "little"))
        text = _PRINT_TEXT[form.name](self, form, data).rstrip("\n")
        self._note(form, time, data, f"{place.name}: {text}", {"ip": fields["ip"], "text": text})

    def events(self, comms: Mapping[int, str]) -> tuple[Event, ...]:
        """Everything so far, in order of time. ``comms``: tasks by process id."""
        ordered = sorted(self._raw, key=lambda one: one.time)
        return tuple(
            Event(one.system, one.name, one.time, one.pid, comms.get(one.pid, "<...>"), one.text, one.fields, one.flags)
            for one in ordered
        )

    @property
    def pids(self) -> set[int]:
        return {one.pid for one in self._raw}

    def _note(self, form: Format, time: int, data: bytes, text: str, fields: dict[str, Any]) -> None:
        pid = int.from_bytes(data[4:8], "little")
        self._raw.append(_Raw(time, pid, flags_text(data[2], data[3]), form.system, form.name, text, fields))

    def _lines(self) -> list[str]:
        """The text of each record; what goes on over several lines belongs to the one before."""
        lines: list[str] = []
        for line in self._fs.read(INSTANCE + "trace").splitlines():
            match = _LINE.match(line)
            if match is not None:
                lines.append(match[1])
            elif lines and not line.startswith("#") and not line.startswith("CPU:"):
                lines[-1] += "\n" + line
        return lines

    def _format_of(self, data: bytes) -> Format:
        number = int.from_bytes(data[:2], "little")
        return self._formats.get(number, Format("", f"type {number}", number, ()))

    def _take_format(self, system: str, text: str) -> None:
        form = Format.parse(system, text)
        self._formats[form.number] = form

    # -- trace_printk ---------------------------------------------------------------------------------------------

    def _text_inside(self, form: Format, data: bytes) -> str:
        return data[form.field("buf").offset :].split(b"\0")[0].decode("utf-8", "replace")

    def _text_pointed_to(self, form: Format, data: bytes) -> str:
        return self._guest.read_cstr(self._word(form, "str", data)).decode("utf-8", "replace")

    def _text_formatted(self, form: Format, data: bytes) -> str:
        window = self._sys.window
        window.clear()
        out, arguments = window.reserve(_TEXT_ROOM), window.put(data[form.field("buf").offset :] + bytes(8))
        self._guest.call("bstr_printf", out, _TEXT_ROOM, self._word(form, "fmt", data), arguments)
        return self._guest.read_cstr(out).decode("utf-8", "replace")

    def _word(self, form: Format, name: str, data: bytes) -> int:
        place = form.field(name)
        return int.from_bytes(data[place.offset : place.offset + place.size], "little")


_PRINT_TEXT = {
    "print": EventReader._text_inside,
    "bputs": EventReader._text_pointed_to,
    "bprint": EventReader._text_formatted,
}
