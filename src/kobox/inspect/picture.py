"""A picture of what in a kernel only the kernel itself changes: its text, its constants, the interrupt table, who has
which permissions, what is hooked.

Two pictures are compared. The kernel patches its own text at places that it keeps lists of (jump labels, static calls,
ftrace); a change anywhere else is somebody else's.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from kobox.errors import Errno
from kobox.inspect.records import ALARM, NOTE, Finding

_LARGEST_PATCH = 16
"""A change of text is looked at in pieces of so many bytes: no instruction is longer."""
_FTRACE_SITE, _JUMP_SITE, _CALL_SITE, _TRAMPOLINE = 5, 5, 5, 8
_OF_FTRACE = frozenset({"ftrace_call", "ftrace_regs_call", "ftrace_graph_call"})
"""Calls inside ftrace's own trampolines, which it points to who listens."""
_MOST_TASKS = 1 << 16


class Credentials(NamedTuple):
    comm: str
    uid: int
    euid: int
    capabilities: int


@dataclass(frozen=True, slots=True)
class Picture:
    text: bytes
    constants: bytes
    gates: bytes
    tasks: dict[int, Credentials]
    hooks: dict[str, str]
    """Functions that ftrace has taken over: name to the line of ``enabled_functions``."""
    probes: frozenset[str]


class Photographer:
    """Takes pictures of one kernel and compares them."""

    def __init__(self, kernel: Any) -> None:
        self._kernel, self._guest = kernel, kernel.guest
        self._text = self._range("_stext", "_etext")
        self._constants = self._range("__start_rodata", "__end_rodata")
        self._after_init = self._range("__start_ro_after_init", "__end_ro_after_init")
        self._sites = sorted(self._patch_sites())

    def take(self) -> Picture:
        guest = self._guest
        gates = guest.symbols.get("idt_table")
        return Picture(
            self._read(self._text),
            self._read(self._constants),
            guest.read(gates, 4096) if gates is not None else b"",
            dict(self._tasks()),
            dict(self._enabled_functions()),
            frozenset(self._lines("/sys/kernel/debug/kprobes/list")),
        )

    def compare(self, before: Picture, after: Picture, is_livepatch: bool) -> Iterator[Finding]:
        yield from self._text_changes(before.text, after.text)
        yield from self._constant_changes(before.constants, after.constants)
        yield from self._gate_changes(before.gates, after.gates)
        yield from self._credential_changes(before.tasks, after.tasks)
        for name, line in after.hooks.items():
            if before.hooks.get(name) != line:
                takes_over = " I " in f" {line} " and not is_livepatch
                what = "takes over" if takes_over else "watches"
                text = f"{what} {name}() by ftrace ({line})"
                yield Finding("ftrace-takeover" if takes_over else "ftrace", ALARM if takes_over else NOTE, text, name)
        for line in sorted(after.probes - before.probes):
            yield Finding("kprobe", NOTE, f"has a probe: {line}", line.split()[-1])

    # -- changes ----------------------------------------------------------------------------------------------------

    def _text_changes(self, before: bytes, after: bytes) -> Iterator[Finding]:
        start = self._text[0]
        for at, size in differences(before, after):
            address = start + at
            if self._is_site(address, size):
                continue
            name = self.symbolized(address)
            change = f"{before[at : at + size].hex(' ')} -> {after[at : at + size].hex(' ')}"
            yield Finding("text-patched", ALARM, f"changed kernel code at {name}: {change}", name)

    def _constant_changes(self, before: bytes, after: bytes) -> Iterator[Finding]:
        start = self._constants[0]
        seen = set()
        for at, _ in differences(before, after):
            word = at & ~7
            if self._after_init[0] <= start + at < self._after_init[1] or word in seen:
                continue
            seen.add(word)
            name = self.symbolized(start + word)
            old, new = (int.from_bytes(data[word : word + 8], "little") for data in (before, after))
            rule = "syscall-table" if name.startswith(("sys_call_table", "ia32_sys_call_table")) else "constant-changed"
            text = f"changed {name}, which is read-only: {self.symbolized(old)} -> {self.symbolized(new)}"
            yield Finding(rule, ALARM, text, name)

    def _gate_changes(self, before: bytes, after: bytes) -> Iterator[Finding]:
        for vector in sorted({at // 16 for at, _ in differences(before, after)}):
            text = f"changed the gate of interrupt {vector:#x}: {_target(before, vector)} -> {_target(after, vector)}"
            yield Finding("interrupt-table", ALARM, text, f"{vector:#x}")

    def _credential_changes(self, before: dict[int, Credentials], after: dict[int, Credentials]) -> Iterator[Finding]:
        for pid, now in after.items():
            was = before.get(pid)
            if was is None or was.comm != now.comm:
                continue
            if now.euid < was.euid or now.uid < was.uid or now.capabilities & ~was.capabilities:
                text = f"gave permissions to {now.comm} (task {pid}): euid {was.euid} -> {now.euid}"
                yield Finding("credentials", ALARM, text, str(pid))

    # -- reading ----------------------------------------------------------------------------------------------------

    def symbolized(self, address: int) -> str:
        """``name+0x10``, with the module in brackets; the address where it belongs to nobody."""
        found = self._guest.symbols.at(address)
        start, end = self._text[0], self._guest.symbol("_end")
        if found is not None and start <= address < end:
            return f"{found.name}+{found.offset:#x}" if found.offset else str(found.name)
        for line in self._lines("/proc/modules"):
            fields = line.split()
            base, size = int(fields[5], 16), int(fields[1])
            if base and base <= address < base + size:
                return f"{address:#x} [{fields[0]}]"
        return f"{address:#x}"

    def _range(self, first: str, behind: str) -> tuple[int, int]:
        return self._guest.symbol(first), self._guest.symbol(behind)

    def _read(self, place: tuple[int, int]) -> bytes:
        data: bytes = self._guest.read(place[0], place[1] - place[0])
        return data

    def _is_site(self, address: int, size: int) -> bool:
        """Whether all changed bytes lie in a place that the kernel itself patches."""
        index = bisect_right(self._sites, (address, 1 << 32)) - 1
        if index < 0:
            return False
        start, length = self._sites[index]
        return address + size <= start + length

    def _patch_sites(self) -> Iterator[tuple[int, int]]:
        guest, image = self._guest, self._guest.image
        for table, record, member, size in (
            ("__start___jump_table __stop___jump_table", "jump_entry", "code", _JUMP_SITE),
            ("__start_static_call_sites __stop_static_call_sites", "static_call_site", "addr", _CALL_SITE),
        ):
            first, behind = table.split()
            if not guest.has(first) or not guest.has(behind):
                continue
            start, end = self._range(first, behind)
            step, offset = guest.layouts.size(record), guest.layouts.offset(record, member)
            data = guest.read(start, end - start)
            for at in range(0, len(data) - step + 1, step):
                (relative,) = struct.unpack_from("<i", data, at + offset)
                yield start + at + offset + relative, size
        if guest.has("__start_mcount_loc"):
            start, end = self._range("__start_mcount_loc", "__stop_mcount_loc")
            for (address,) in struct.iter_unpack("<Q", image.read(start, end - start)):
                yield address, _FTRACE_SITE
        for symbol in image.symbols.records():
            if symbol.name.startswith("__SCT__"):
                yield symbol.address, _TRAMPOLINE
            elif symbol.name in _OF_FTRACE:
                yield symbol.address, _FTRACE_SITE

    def _tasks(self) -> Iterator[tuple[int, Credentials]]:
        guest = self._guest
        first = guest.symbol("init_task")
        link = guest.layouts.offset("task_struct", "tasks")
        entry = guest.read_uint(first + link)
        for _ in range(_MOST_TASKS):
            if entry == first + link:
                return
            task = guest.view("task_struct", entry - link)
            cred = guest.view("cred", task["cred"])
            capabilities = guest.read_uint(cred.at("cap_effective"))
            yield task["pid"], Credentials(task.text("comm"), cred["uid.val"], cred["euid.val"], capabilities)
            entry = guest.read_uint(entry)

    def _enabled_functions(self) -> Iterator[tuple[str, str]]:
        for line in self._lines("/sys/kernel/tracing/enabled_functions"):
            name, _, rest = line.partition(" ")
            yield name, " ".join(rest.split())

    def _lines(self, path: str) -> list[str]:
        try:
            text: str = self._kernel.read(path).decode("utf-8", "replace")
        except Errno:
            return []
        return text.splitlines()


def differences(before: bytes, after: bytes) -> Iterator[tuple[int, int]]:
    """(offset, size) of what differs, at most 16 bytes each; whole equal pages are passed over at once."""
    for page in range(0, min(len(before), len(after)), 4096):
        old, new = before[page : page + 4096], after[page : page + 4096]
        if old == new:
            continue
        at = 0
        while at < len(old):
            if old[at] == new[at]:
                at += 1
                continue
            end = at + 1
            last = at
            while end < len(old) and end - at < _LARGEST_PATCH and end - last < 4:
                if old[end] != new[end]:
                    last = end
                end += 1
            yield page + at, last + 1 - at
            at = last + 1


def _target(gates: bytes, vector: int) -> str:
    low, _, _, middle, high = struct.unpack_from("<HHHHI", gates, vector * 16)
    return f"{high << 32 | middle << 16 | low:#x}"
