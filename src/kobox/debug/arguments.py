"""Which argument of its function a register still holds at some instruction, told from the code and the BTF prototype.

Distributions ship modules and kernels with BTF but without DWARF: prototypes and structures are known, variables are
not. Following the register moves from the function's first byte finds the argument behind a pointer often enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kobox.image.btf import Kind, Type

_BY_POSITION = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
_LOST_AT_CALLS = frozenset({"rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11"})
_LETTERS = {"a": "rax", "b": "rbx", "c": "rcx", "d": "rdx"}


@dataclass(frozen=True, slots=True)
class Argument:
    """Parameter number ``index`` (from 0) with its name and type."""

    index: int
    name: str
    type: Type

    @property
    def pointee(self) -> Type | None:
        bare = self.type.strip()
        return bare.target.strip() if bare.kind is Kind.PTR else None


def argument_in(register: str, code: bytes, function: Type) -> Argument | None:
    """The parameter that ``register`` holds behind ``code``, the function's bytes up to the instruction in question.

    ``function`` is the BTF entry of the function. The code is read in order of address: a value that only a jump back
    changes would be missed, so take the answer for likely, not for proved.
    """
    number = _holders(code).get(register)
    if number is None or function.kind is not Kind.FUNC:
        return None
    parameters = function.params
    if number >= len(parameters):
        return None
    return Argument(number, parameters[number].name, parameters[number].type)


def _holders(code: bytes) -> dict[str, int]:
    """Register to argument number, behind the last instruction."""
    import capstone
    from capstone import x86

    make: Any = capstone.Cs  # capstone is untyped
    engine = make(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.detail = True
    held = {name: number for number, name in enumerate(_BY_POSITION)}
    for insn in engine.disasm(code, 0):
        if insn.address == 0 and insn.id == x86.X86_INS_CALL:  # the pad of ftrace: every register survives it
            continue
        moved = None
        if insn.id == x86.X86_INS_MOV and all(one.type == x86.X86_OP_REG for one in insn.operands):
            moved = held.get(insn.reg_name(insn.operands[1].reg))
        written = {_whole(insn.reg_name(number)) for number in insn.regs_access()[1]}
        if insn.id == x86.X86_INS_CALL:
            written |= _LOST_AT_CALLS
        for name in written:
            held.pop(name, None)
        if moved is not None:
            held[insn.reg_name(insn.operands[0].reg)] = moved
    return held


def _whole(name: str) -> str:
    """The 64-bit register that a part such as ``edi``, ``r8d`` or ``al`` belongs to."""
    if name.startswith("r") and name[1:2].isdigit():
        return name.rstrip("dwb")
    stem = name[1:] if name[0] in "re" and len(name) == 3 else name
    if len(stem) == 2 and stem[1] in "xlh" and stem[0] in _LETTERS:
        return _LETTERS[stem[0]]
    return "r" + stem.removesuffix("l") if len(stem) > 2 else "r" + stem


def member_path(structure: Type, offset: int) -> tuple[str, str] | None:
    """Path and type of the member that covers a byte offset, through nested and anonymous ones."""
    return _member_path(structure, offset, "")


def _member_path(kind: Type, offset: int, path: str) -> tuple[str, str] | None:
    kind = kind.strip()
    if kind.kind in (Kind.STRUCT, Kind.UNION):
        for member in kind.members:
            if member.offset <= offset < member.offset + max(member.size, 1):
                longer = ".".join(filter(None, (path, member.name)))
                return _member_path(member.type, offset - member.offset, longer)
        return None
    if kind.kind is Kind.ARRAY and kind.target.size:
        size = kind.target.size
        return _member_path(kind.target, offset % size, f"{path}[{offset // size}]")
    return (path, kind.declare()) if path else None
