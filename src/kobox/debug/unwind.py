"""Walk a kernel stack: follow ORC frames and, at the same time, scan for text addresses as a failsafe.

Pure: memory, stacks and tables come through ``Guest``. The walk gives the same frames, ``?`` marks and
embedded register dumps as the kernel's own trace. Follows ``arch/x86/kernel/unwind_orc.c`` and ``dumpstack.c``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from kobox.abi.traps import IRET_FRAME_OFFSET, IRET_FRAME_SIZE, PT_REGS, PT_REGS_SIZE, PtRegs
from kobox.debug.orc import OrcEntry, OrcReg, OrcType
from kobox.debug.records import Code, Frame, Registers, RegsFrame, StackMark, Symbol, Symbolizer, TraceItem

CODE_BEFORE, CODE_AFTER = 42, 22
"""Bytes of the ``Code:`` line before the instruction, and from it on."""
_MASK = (1 << 64) - 1
_PAGE = 4096


class Stack(NamedTuple):
    """A stack of the guest. ``name``: what the trace prints in ``<…>``; ``next_sp``: where the one before goes on."""

    name: str
    begin: int
    end: int
    next_sp: int = 0

    def holds(self, addr: int, size: int = 8) -> bool:
        return self.begin <= addr and addr + size <= self.end


class Guest(Protocol):
    """What the walk needs of a kernel."""

    def read(self, addr: int, size: int) -> bytes | None:
        """Memory, or None when any byte of it cannot be read."""

    def stack_at(self, addr: int) -> Stack | None:
        """The stack that holds ``addr``; None for a guard page or other memory."""

    def is_text(self, addr: int) -> bool:
        """Whether ``addr`` lies in code of the kernel, a module or generated code."""

    def find_orc(self, ip: int) -> OrcEntry | None:
        """The entry of ``ip`` from the kernel's or the module's table; None for code without any."""


_NULL_CALL = OrcEntry(OrcReg.SP, 8, OrcReg.UNDEFINED, 0, OrcType.CALL, False)
"""A call through a NULL pointer: nothing ran yet, so the return address is on top of the stack."""
_FRAME_POINTER = OrcEntry(OrcReg.BP, 16, OrcReg.PREV_SP, -16, OrcType.CALL, False)
"""A guess for generated code without a table; what follows is no longer reliable."""

_SAVED: dict[int, int] = {
    OrcReg.R10: PT_REGS.r10,
    OrcReg.R13: PT_REGS.r13,
    OrcReg.DI: PT_REGS.di,
    OrcReg.DX: PT_REGS.dx,
}


@dataclass(slots=True)
class _State:
    """Where the unwinder stands. ``regs`` holds saved registers by ``pt_regs`` index, ``regs_addr`` where they lie."""

    ip: int
    sp: int
    bp: int
    signal: bool
    regs: dict[int, int] | None = None
    regs_addr: int | None = None
    full_regs: bool = False
    previous_regs: dict[int, int] | None = None
    done: bool = False
    unreliable: bool = False

    def return_address_place(self) -> int | None:
        if self.done:
            return None
        if self.regs_addr is not None:
            return self.regs_addr + 8 * PT_REGS.ip
        return self.sp - 8 if self.sp else None

    def saved(self, index: int) -> int | None:
        if self.regs is None:
            return None
        if self.full_regs:
            return self.regs[index]
        return self.previous_regs[index] if self.previous_regs else None


def walk(guest: Guest, start: Registers, symbolize: Symbolizer, interrupted: bool = True) -> tuple[TraceItem, ...]:
    """The call trace below ``start``.

    ``interrupted``: ``start`` is where a trap hit, and is not itself part of the trace. Otherwise ``start.ip`` is a
    return address that stands just below ``start.sp``, as in a task that sleeps in the scheduler.
    """
    state = _State(start.ip, start.sp, start.bp, interrupted)
    if interrupted:
        state.regs = {getattr(PT_REGS, name): getattr(start, name) for name in PtRegs._fields}
        state.full_regs = True
        _next_frame(guest, state)
        first = start.sp
    else:
        first = start.sp - 8
    return tuple(_scan(guest, state, first, symbolize))


def _scan(guest: Guest, state: _State, sp: int, symbolize: Symbolizer) -> Iterator[TraceItem]:
    """Every text address on the stacks from ``sp`` on; those that the unwinder stands at are reliable."""
    seen: set[tuple[int, int]] = set()
    while sp:
        sp = (sp + 7) & ~7
        stack = guest.stack_at(sp)
        if stack is None:  # below the stack's end: its guard page was hit, so go on where the stack itself begins
            sp = (sp + _PAGE - 1) & ~(_PAGE - 1)
            stack = guest.stack_at(sp)
        if stack is None or stack[1:3] in seen:
            return
        seen.add((stack.begin, stack.end))
        yield StackMark(stack.name)
        yield from _scan_stack(guest, state, stack, sp, symbolize)
        yield StackMark(stack.name, end=True)
        sp = stack.next_sp


def _scan_stack(guest: Guest, state: _State, stack: Stack, sp: int, symbolize: Symbolizer) -> Iterator[TraceItem]:
    yield from _saved_registers(guest, state, stack, symbolize)
    content = guest.read(sp, stack.end - sp)
    if content is None:
        return
    for place, (addr,) in enumerate(struct.iter_unpack("<Q", content[: len(content) & ~7])):
        here = sp + 8 * place
        if not guest.is_text(addr):
            continue
        shown_already = state.regs_addr is not None and not state.done and here == state.regs_addr + 8 * PT_REGS.ip
        if not shown_already:
            reliable = here == state.return_address_place()
            yield Frame(addr, backtrace_symbol(symbolize, addr), reliable)
            if not reliable:
                continue
        _next_frame(guest, state)
        yield from _saved_registers(guest, state, stack, symbolize)


def backtrace_symbol(symbolize: Symbolizer, addr: int) -> Symbol | None:
    """The function that made the call: a return address may already be the next function's first byte."""
    symbol = symbolize(addr - 1)
    return symbol and Symbol(symbol.name, symbol.offset + 1, symbol.size, symbol.module)


def _saved_registers(guest: Guest, state: _State, stack: Stack, symbolize: Symbolizer) -> Iterator[RegsFrame]:
    """The registers that the unwinder stands at, if they lie on this stack."""
    if state.done or state.regs_addr is None or state.regs is None:
        return
    partial = not state.full_regs
    low = state.regs_addr + (IRET_FRAME_OFFSET if partial else 0)
    if not stack.holds(low, IRET_FRAME_SIZE if partial else PT_REGS_SIZE):
        return
    names = [name for name in PtRegs._fields if getattr(PT_REGS, name) in state.regs]
    regs = Registers(**{name: state.regs[getattr(PT_REGS, name)] for name in names})
    symbol = None if regs.user_mode else symbolize(regs.ip)
    yield RegsFrame(regs, symbol, read_code(guest, regs.ip), partial)


def read_code(guest: Guest, ip: int) -> Code:
    """The bytes around ``ip`` for the ``Code:`` line: all of them or, as the kernel has it, none."""
    start = (ip - CODE_BEFORE) & _MASK
    return Code(start, guest.read(start, CODE_BEFORE + CODE_AFTER), CODE_BEFORE)


def _next_frame(guest: Guest, state: _State) -> None:
    """One step towards the caller; ``done`` at the end of the stack or when something does not add up."""
    if state.done:
        return
    if state.regs is not None and state.regs[PT_REGS.cs] & 3 == 3:
        state.done = True
        return
    entry = _entry_for(guest, state)
    if entry.type in (OrcType.UNDEFINED, OrcType.END_OF_STACK):
        state.unreliable |= entry.type is OrcType.UNDEFINED
        state.done = True
        return
    before = state.sp
    cfa = _previous_sp(guest, state, entry)
    if cfa is None or not _leave(guest, state, entry, cfa) or not _restore_bp(guest, state, entry, cfa):
        state.unreliable = state.done = True
        return
    here = guest.stack_at(before)
    if here and here.holds(state.sp) and state.sp <= before:  # bad tables would loop for ever
        state.unreliable = state.done = True


def _entry_for(guest: Guest, state: _State) -> OrcEntry:
    """A return address belongs to the call before it, the address of a trap to itself."""
    ip = state.ip if state.signal else state.ip - 1
    if ip in (0, -1):
        return _NULL_CALL
    entry = guest.find_orc(ip)
    if entry is None:
        state.unreliable = True
        return _FRAME_POINTER
    return entry


def _previous_sp(guest: Guest, state: _State, entry: OrcEntry) -> int | None:
    match entry.sp_reg:
        case OrcReg.SP:
            return state.sp + entry.sp_offset & _MASK
        case OrcReg.BP:
            return state.bp + entry.sp_offset & _MASK
        case OrcReg.SP_INDIRECT:
            pointer = _stack_word(guest, state.sp)
            return None if pointer is None else pointer + entry.sp_offset & _MASK
        case OrcReg.BP_INDIRECT:
            return _stack_word(guest, state.bp + entry.sp_offset & _MASK)
        case other if other in _SAVED:
            return state.saved(_SAVED[other])
    return None


def _leave(guest: Guest, state: _State, entry: OrcEntry, cfa: int) -> bool:
    """Take ip and sp of the frame before, from a return address or from saved registers."""
    if entry.type is OrcType.CALL:
        ip = _stack_word(guest, cfa - 8)
        if ip is None:
            return False
        state.ip, state.sp = ip, cfa
        state.regs = state.previous_regs = state.regs_addr = None
    else:
        partial = entry.type is OrcType.REGS_PARTIAL
        first = PT_REGS.ip if partial else 0
        content = _stack_bytes(guest, cfa, 8 * (len(PT_REGS) - first))
        if content is None:
            return False
        if not partial:
            state.previous_regs = None
        elif state.full_regs:
            state.previous_regs = state.regs
        state.regs = dict(enumerate((word for (word,) in struct.iter_unpack("<Q", content)), first))
        state.regs_addr = cfa - 8 * first
        state.full_regs = not partial
        state.ip, state.sp = state.regs[PT_REGS.ip], state.regs[PT_REGS.sp]
    state.signal = entry.signal
    return True


def _restore_bp(guest: Guest, state: _State, entry: OrcEntry, cfa: int) -> bool:
    match entry.bp_reg:
        case OrcReg.UNDEFINED:
            saved = state.saved(PT_REGS.bp)
            state.bp = state.bp if saved is None else saved
            return True
        case OrcReg.PREV_SP:
            value = _stack_word(guest, cfa + entry.bp_offset & _MASK)
        case OrcReg.BP:
            value = _stack_word(guest, state.bp + entry.bp_offset & _MASK)
        case _:
            return False
    if value is None:
        return False
    state.bp = value
    return True


def _stack_word(guest: Guest, addr: int) -> int | None:
    content = _stack_bytes(guest, addr, 8)
    return None if content is None else int.from_bytes(content, "little")


def _stack_bytes(guest: Guest, addr: int, size: int) -> bytes | None:
    stack = guest.stack_at(addr)
    return guest.read(addr, size) if stack and stack.holds(addr, size) else None
