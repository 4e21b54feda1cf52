"""Where the kernel's own data leads into a module: notifier chains, netfilter, and every other static pointer.

Honest modules hang themselves into such places too, so that these are notes: they say who is told of what.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from kobox.errors import GuestError, NotModelled
from kobox.inspect.records import NOTE, Finding

if TYPE_CHECKING:
    from kobox.kernel.guest import Guest, View

_MOST_HOOKS, _MOST_FINDINGS = 1024, 64


class Span(NamedTuple):
    """An address range of a module, [start, end)."""

    start: int
    end: int

    def holds(self, address: int) -> bool:
        return self.start <= address < self.end


def spans_of(view: View, guest: Guest) -> list[Span]:
    """A module's core memory: one region, or several on kernels that have them."""
    found = []
    layouts = guest.layouts
    if layouts.has("module", "core_layout.base"):
        found.append(Span(view["core_layout.base"], view["core_layout.base"] + view["core_layout.size"]))
    else:
        number = 0
        while layouts.has("module", f"mem[{number}].base") and number < 4:
            base = view[f"mem[{number}].base"]
            found.append(Span(base, base + view[f"mem[{number}].size"]))
            number += 1
    return [span for span in found if span.start]


def hooks_into(spans: list[Span], guest: Guest, symbolized: Any) -> Iterator[Finding]:
    """Pointers from the kernel's static data into these ranges, then the functions that see packets."""
    seen = 0
    for address, target in _static_pointers(guest, spans):
        name = symbolized(address)
        if name.partition("+")[0] in _OF_THE_LOADER:
            continue
        seen += 1
        if seen > _MOST_FINDINGS:
            return
        yield Finding("data-pointer", NOTE, f"the kernel's {name} leads to {symbolized(target)}", name)
    yield from _netfilter(guest, spans, symbolized)


_OF_THE_LOADER = frozenset(
    {"modules", "mod_tree", "module_kset", "ftrace_mod_maps", "ddebug_tables", "module_bug_list"}
)
"""Where every module is noted."""


def _static_pointers(guest: Guest, spans: list[Span]) -> Iterator[tuple[int, int]]:
    for first, behind in (("_sdata", "_edata"), ("__bss_start", "__bss_stop")):
        if not guest.has(first) or not guest.has(behind):
            continue
        start, end = guest.symbol(first), guest.symbol(behind)
        words = memoryview(guest.read(start, (end - start) & ~7)).cast("Q")
        low, high = min(span.start for span in spans), max(span.end for span in spans)
        for index, word in enumerate(words):
            if low <= word < high and any(span.holds(word) for span in spans):
                yield start + index * 8, word


def _netfilter(guest: Guest, spans: list[Span], symbolized: Any) -> Iterator[Finding]:
    """Hooks of the first network namespace (net/netfilter/core.c: an array of entries, its length in front)."""
    layouts = guest.layouts
    for family in ("ipv4", "ipv6", "arp", "bridge"):
        path = f"nf.hooks_{family}"
        if not guest.has("init_net") or not layouts.has("net", path):
            continue
        field = layouts.field("net", path)
        table = guest.symbol("init_net") + field.offset
        for number in range(field.size // 8):
            entries = guest.read_uint(table + number * 8)
            if not entries:
                continue
            try:
                count = min(guest.view("nf_hook_entries", entries)["num_hook_entries"], _MOST_HOOKS)
                first, size = layouts.offset("nf_hook_entries", "hooks"), layouts.size("nf_hook_entry")
                hooks = [guest.read_uint(entries + first + size * at) for at in range(count)]
            except (GuestError, NotModelled):
                continue
            for hook in hooks:
                if any(span.holds(hook) for span in spans):
                    text = f"sees packets of {family} at hook {number}: {symbolized(hook)}"
                    yield Finding("netfilter-hook", NOTE, text, f"{family}:{number}")
