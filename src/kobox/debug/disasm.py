"""Decode the bytes around a fault: which instruction it was, what memory it meant, what came before it.

The bytes before RIP begin in the middle of nowhere: decoding starts at the first place from which an instruction
boundary falls exactly on RIP, as ``scripts/decodecode`` of the kernel does. Capstone is imported when first used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from kobox.debug.records import Code, Instruction, MemoryOperand, Oops, Registers

_MASK = (1 << 64) - 1


def decode(code: Code, ip: int | None = None, registers: Registers | None = None) -> tuple[Instruction, ...]:
    """The instructions of a ``Code:`` line in order; the faulting one is marked, if the bytes reach it.

    With ``registers`` the faulting instruction's memory operand gets its address.
    """
    if not code.data:
        return ()
    engine = _engine()
    ip = code.start + code.ip_offset if ip is None else ip
    before, after = code.data[: code.ip_offset], code.data[code.ip_offset :]
    listed = [_instruction(insn) for insn in _lead_in(engine, before, ip)]
    for insn in _all(engine, after, ip):
        one = _instruction(insn)
        if insn.address == ip:
            one = replace(one, faulting=True, memory=_memory_operand(insn, registers))
        listed.append(one)
    return tuple(listed)


def instruction_at(data: bytes, address: int, registers: Registers | None = None) -> Instruction | None:
    """The one instruction that begins with ``data``, marked as the faulting one; None when the bytes are no code."""
    return next((one for one in decode(Code(address, data, 0), address, registers) if one.faulting), None)


def with_instructions(oops: Oops) -> Oops:
    """The same report with its code bytes decoded.

    A log does not tell where the code lay; then addresses count from the start of the function, and what lies before
    it is left out.
    """
    if oops.instructions or not oops.code:
        return oops
    if oops.registers and oops.registers.ip:
        return replace(oops, instructions=decode(oops.code, oops.registers.ip, oops.registers))
    code, ip = oops.code, oops.symbol.offset if oops.symbol else oops.code.ip_offset
    before = min(ip, code.ip_offset)
    trimmed = Code(ip - before, code.data and code.data[code.ip_offset - before :], before)
    return replace(oops, code=trimmed, instructions=decode(trimmed, ip, oops.registers))


def _engine() -> Any:
    import capstone

    make: Any = capstone.Cs  # capstone is untyped
    engine = make(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.syntax = capstone.CS_OPT_SYNTAX_ATT
    engine.detail = True
    return engine


def _all(engine: Any, data: bytes, address: int) -> Iterator[Any]:
    """Instruction by instruction; ``ud2`` may be followed by data of its own, which is skipped byte by byte."""
    at = 0
    while at < len(data):
        found = next(engine.disasm(data[at : at + 15], address + at & _MASK, 1), None)
        if found is None:
            if len(data) - at < 15:  # the line ends within an instruction
                return
            at += 1
            continue
        yield found
        at += found.size


def _lead_in(engine: Any, data: bytes, ip: int) -> list[Any]:
    """The instructions that end exactly at ``ip``, from the earliest byte that gives such a reading."""
    for skip in range(len(data)):
        part = data[skip:]
        found = list(engine.disasm(part, ip - len(part) & _MASK))
        if sum(insn.size for insn in found) == len(part):
            return found
    return []


def _instruction(insn: Any) -> Instruction:
    return Instruction(insn.address, bytes(insn.bytes), f"{insn.mnemonic} {insn.op_str}".strip())


def _memory_operand(insn: Any, registers: Registers | None) -> MemoryOperand | None:
    """The operand that reaches memory; for string instructions and the like capstone names it too."""
    import capstone
    from capstone import x86

    if insn.id in (x86.X86_INS_LEA, x86.X86_INS_NOP):
        return None
    for operand in insn.operands:
        if operand.type != x86.X86_OP_MEM:
            continue
        base = insn.reg_name(operand.mem.base) if operand.mem.base else None
        index = insn.reg_name(operand.mem.index) if operand.mem.index else None
        found = MemoryOperand(
            base, index, operand.mem.scale, operand.mem.disp, operand.size, bool(operand.access & capstone.CS_AC_WRITE)
        )
        segment = insn.reg_name(operand.mem.segment) if operand.mem.segment else None
        if registers is None or segment in ("gs", "fs"):
            return found
        return replace(found, address=_effective(found, registers, insn.address + insn.size))
    return None


def _effective(operand: MemoryOperand, registers: Registers, next_ip: int) -> int | None:
    values = {"rip": next_ip, "rsp": registers.sp} | {_capstone_name(n): v for n, v in registers.general().items()}
    total = operand.displacement
    for name, scale in ((operand.base, 1), (operand.index, operand.scale)):
        if name is None or name == "riz":
            continue
        if name not in values:
            return None
        total += values[name] * scale
    return total & _MASK


def _capstone_name(name: str) -> str:
    return name.lower().replace("r08", "r8").replace("r09", "r9")
