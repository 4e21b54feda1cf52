"""The CPU's architectural state as plain numbers, so that it can be written to a file and given to another process."""

from __future__ import annotations

from kobox.machine.unicorn_abi import GENERAL, REG, Segment, Unicorn

_CONTROL = ("cr0", "cr3", "cr4", "cr2")
_SELECTORS = ("cs", "ss", "ds", "es", "fs", "gs")
_BASES = ("fs_base", "gs_base")
_TABLES = ("gdtr", "idtr", "tr", "ldtr")
_FLOAT = ("fpcw", "fpsw", "mxcsr")
_EFER = 0xC000_0080
_KERNEL_GS_BASE = 0xC000_0102


def save(cpu: Unicorn) -> dict[str, int | list[int]]:
    """Every register that a resting kernel relies on (vector registers are dead at rest)."""
    names = (*GENERAL, "rip", "eflags", *_CONTROL, *_SELECTORS, *_BASES, *_FLOAT)
    state: dict[str, int | list[int]] = {name: cpu.read(REG[name]) for name in names}
    for name in _TABLES:
        table = cpu.read_segment(REG[name])
        state[name] = [table.selector, table.base, table.limit, table.flags]
    state["efer"] = cpu.read_msr(_EFER)
    return state


def load(cpu: Unicorn, state: dict[str, int | list[int]]) -> None:
    """Put a saved state into a fresh CPU whose memory is already in place."""
    numbers = {name: value for name, value in state.items() if isinstance(value, int)}
    tables = {name: value for name, value in state.items() if isinstance(value, list)}
    for name in ("cr4", "cr3"):
        cpu.write(REG[name], numbers[name])
    cpu.write_msr(_EFER, numbers["efer"])
    cpu.write(REG["cr0"], numbers["cr0"])
    for name, (selector, base, limit, flags) in tables.items():
        cpu.write_segment(REG[name], Segment(selector, base, limit, flags))
    for name in (*_SELECTORS, *_BASES, *_FLOAT, "cr2", *GENERAL, "eflags", "rip"):
        cpu.write(REG[name], numbers[name])
