"""Fitting a module's code to the CPU: what arch/x86's ``module_finalize`` does after relocation, in its order.

Follows arch/x86/kernel/alternative.c. Paravirt sites become direct calls, retpolines and return thunks become what the
mitigations in force ask for, alternatives are chosen by CPU feature and their NOPs made long, ENDBRs nobody jumps to
are sealed, and on one CPU lock prefixes go.

Every number that is the kernel's own (feature bits, addresses of its thunks) comes in with ``Cpu``. Jump labels and
static calls are not patched here: the kernel does that when its notifiers see the module (``tables`` says where they
are). Call depth tracking (``.call_sites``) is a mitigation that ``Cpu`` cannot ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from types import MappingProxyType
from typing import NamedTuple

from kobox.link.code import Code, Patch
from kobox.link.insn import Insn, decode
from kobox.link.rules import Rules
from kobox.link.validity import LoadView

CALL, JMP32, JMP8, RET, INT3, NOP = 0xE8, 0xE9, 0xEB, 0xC3, 0xCC, 0x90
ENDBR64, ENDBR32 = b"\xf3\x0f\x1e\xfa", b"\xf3\x0f\x1e\xfb"
ENDBR_POISON = b"\x66\x0f\x1f\x00"
TRAMPOLINE_MARK = b"\x0f\xb9\xcc"
"""``ud1 %esp, %ecx`` behind a static call's trampoline."""

FINALIZED = frozenset(
    {
        ".parainstructions", ".retpoline_sites", ".return_sites", ".altinstructions", ".ibt_endbr_seal", ".smp_locks",
        ".orc_unwind", ".orc_unwind_ip",
    }
)  # fmt: skip
"""Tables that ``module_finalize`` finds by name, whether they are loaded or not."""

_U64 = (1 << 64) - 1
_S32 = Struct("<i")
_ALTERNATIVES = {12: Struct("<iiHBB"), 14: Struct("<iiHHBB")}
_OLD_NOT = 1 << 15
_NOT, _DIRECT_CALL = 1 << 0, 1 << 1
_PARAVIRT = Struct("<QBB")

_NOPL = b"\x0f\x1f"
NOPS = [
    b"",
    b"\x90",
    b"\x66\x90",
    _NOPL + b"\0",
    _NOPL + b"\x40\0",
    _NOPL + b"\x44\0\0",
    b"\x66" + _NOPL + b"\x44\0\0",
    _NOPL + b"\x80\0\0\0\0",
    _NOPL + b"\x84\0\0\0\0\0",
    b"\x2e" + _NOPL + b"\x84\0\0\0\0\0",
    b"\x66\x2e" + _NOPL + b"\x84\0\0\0\0\0",
    b"\x66\x66\x2e" + _NOPL + b"\x84\0\0\0\0\0",
]
_MAX_OLD_NOP = 8


class Cpu(NamedTuple):
    """The CPU and the mitigations in force, as the running kernel has them.

    ``has``: whether a feature number (``X86_FEATURE_*``) is set. ``thunks``: address of each retpoline thunk → register
    number. ``return_thunk``: where compiled return sites jump; ``returns_to``: where they should (with ``rethunk``).
    ``its_thunk``: thunk for a register, where indirect branches in the lower half of a cache line are unsafe.
    ``paravirt``: paravirt operation number → function address, None for the one that does nothing. ``pointer_at`` reads
    a pointer of kernel memory; ``bug_func`` stands for a missing one. ``uniprocessor``: lock prefixes were taken out.
    """

    has: Callable[[int], bool] = lambda feature: False
    retpoline: bool = False
    retpoline_lfence: bool = False
    rethunk: bool = False
    ibt_built: bool = False
    uniprocessor: bool = False
    thunks: Mapping[int, int] = MappingProxyType({})
    return_thunk: int = 0
    returns_to: int = 0
    its_return: bool = False
    its_thunk: Callable[[int], int] | None = None
    paravirt: Callable[[int], int | None] | None = None
    pointer_at: Callable[[int], int] | None = None
    bug_func: int = 0


def finalize(
    view: LoadView,
    addresses: Sequence[int],
    memory: Mapping[str, memoryview | bytearray],
    bases: Mapping[str, int],
    rules: Rules,
    cpu: Cpu,
    doubts: list[str] | None = None,
) -> list[Patch]:
    """Patch the module in ``memory`` (regions at ``bases``, sections at ``addresses``); what changed, in order.

    ``doubts`` is filled with what a kernel would warn about; it does so in its own words and with its own trace.
    Newer kernels take lock prefixes out of all the module's code, older ones only out of ``.text``.
    """
    code = Code(memory, bases, doubts=[] if doubts is None else doubts)

    def section(name: str) -> tuple[int, int]:
        number = _last(view, name)
        size = view.sections[number].size
        if size and code.find(addresses[number]) is None:
            code.doubts.append(f"{name} is not loaded")
        return addresses[number], size

    if cpu.paravirt is not None:
        apply_paravirt(code, *section(".parainstructions"), cpu.paravirt)
    apply_retpolines(code, *section(".retpoline_sites"), cpu)
    apply_returns(code, *section(".return_sites"), cpu)
    apply_alternatives(code, *section(".altinstructions"), rules, cpu)
    if cpu.ibt_built:
        apply_ibt_endbr(code, *section(".ibt_endbr_seal"))
    if cpu.uniprocessor:
        text, size = (bases["text"], len(memory["text"])) if rules.memories else section(".text")
        apply_smp_unlock(code, *section(".smp_locks"), text, text + size)
    return code.patches


def _last(view: LoadView, name: str) -> int:
    """Of several sections with one name ``module_finalize`` takes the last."""
    return next((section.index for section in reversed(view.sections) if section.name == name), 0)


def sites(code: Code, start: int, size: int) -> list[int]:
    """Addresses in a table of distances, each counted from its own place."""
    table = code.read(start, size // 4 * 4)
    return [start + 4 * number + distance for number, (distance,) in enumerate(_S32.iter_unpack(table))]


def apply_paravirt(code: Code, start: int, size: int, function_of: Callable[[int], int | None]) -> None:
    """Indirect calls through the paravirt table become direct calls, or NOPs where there is nothing to do."""
    for number in range(size // 16):
        raw = code.read(start + 16 * number, _PARAVIRT.size)
        if len(raw) < _PARAVIRT.size:
            return
        address, kind, length = _PARAVIRT.unpack(raw)
        function = function_of(kind)
        call = b"" if function is None else branch(CALL, address, function)
        code.write(address, call + old_nops(length - len(call)), "paravirt")


def branch(opcode: int, address: int, target: int) -> bytes:
    """A call or jump with a 4-byte distance, standing at ``address``."""
    return bytes((opcode,)) + _S32.pack(_signed32(target - address - 5))


def _signed32(value: int) -> int:
    return (value + (1 << 31) & 0xFFFFFFFF) - (1 << 31)


# Retpolines and returns.


_PLAIN_BRANCHES = {bytes((opcode,)): Insn(5, bytes((opcode,)), b"", (1, 4), None) for opcode in (CALL, JMP32)}
"""Nearly all retpoline sites: not worth a decoder."""


def apply_retpolines(code: Code, start: int, size: int, cpu: Cpu) -> None:
    """Calls and jumps to a retpoline thunk become indirect ones where the CPU may do so."""
    stays = cpu.retpoline and not cpu.retpoline_lfence
    for address in sites(code, start, size):
        raw = code.read(address, 15)
        insn = _PLAIN_BRANCHES.get(raw[:1]) if len(raw) >= 5 else None
        insn = insn or decode(raw)
        if insn is None or insn.branch is None or not _is_near_branch(insn.opcode):
            code.doubts.append(f"no branch at the retpoline site {address:#x}")
            continue
        (distance,) = _S32.unpack_from(raw, insn.branch[0])
        register = cpu.thunks.get(address + insn.length + distance & _U64)
        if register is None:
            code.doubts.append(f"the branch at {address:#x} does not lead to a thunk")
            continue
        if stays:
            continue
        made = retpoline_bytes(insn, address, register, cpu)
        if len(made) == insn.length:
            code.write(address, optimize_single_nops(made, len(made)), "retpoline")


def _is_near_branch(opcode: bytes) -> bool:
    return opcode[0] in (CALL, JMP32) or (opcode[0] == 0x0F and opcode[1] & 0xF0 == 0x80)


def retpoline_bytes(insn: Insn, address: int, register: int, cpu: Cpu) -> bytes:
    """What stands for ``insn``, a branch to the thunk of ``register``, when no retpoline is wanted."""
    made = b""
    opcode = insn.opcode[0]
    if opcode == 0x0F:
        made = bytes((0x70 + (insn.opcode[1] & 0xF ^ 1), insn.length - 2))
        opcode = JMP32
    if cpu.retpoline_lfence:
        made += b"\x0f\xae\xe8"
    if cpu.its_thunk is not None and not (address + len(made) + 1 + register // 8) & 0x20:
        return _trampoline(insn, address, cpu.its_thunk(register))
    if register >= 8:
        made += b"\x41"
    made += bytes((0xFF, (0xD0 if opcode == CALL else 0xE0) + register % 8))
    if opcode == JMP32 and len(made) < insn.length:
        made += bytes((INT3,))
    return made + bytes((NOP,)) * (insn.length - len(made))


def _trampoline(insn: Insn, address: int, target: int) -> bytes:
    opcode, before = insn.opcode[0], b""
    if opcode == 0x0F:
        before, opcode = b"\x0f", insn.opcode[1]
    elif insn.length == 6:
        before = b"\x2e"
    return before + branch(opcode, address + len(before), target)


def apply_returns(code: Code, start: int, size: int, cpu: Cpu) -> None:
    """Jumps to the return thunk become plain returns, or jumps to the thunk that the mitigation in force wants."""
    plain = bytes((RET, INT3, INT3, INT3, INT3))
    memory, base, end = memoryview(b""), 0, 0
    for address in sites(code, start, size):
        if not base <= address <= end - 5:  # most sites lie in the region of the one before
            found = code.find(address)
            if found is None or len(found[0]) < found[1] + 5:
                code.doubts.append(f"the return site {address:#x} lies outside")
                continue
            memory, base = found[0], address - found[1]
            end = base + len(memory)
        at = address - base
        raw = bytes(memory[at : at + 8])
        target = address + 5 + _S32.unpack_from(raw, 1)[0] if raw[0] == JMP32 else None
        is_trampoline = raw[5:8] == TRAMPOLINE_MARK
        if is_trampoline and raw[0] != RET and target != cpu.return_thunk:
            continue
        if not is_trampoline and (target is None or target != cpu.return_thunk):
            code.doubts.append(f"no jump to the return thunk at {address:#x}")
            continue
        wanted = cpu.rethunk and (not cpu.its_return or not address & 0x20)
        made = branch(JMP32, address, cpu.returns_to) if wanted else plain
        if raw[:5] != made:
            memory[at : at + 5] = made
            code.patches.append(Patch(address, made, "return"))


# Alternatives.


class Alternative(NamedTuple):
    """One entry of ``.altinstructions``: replace ``length`` bytes if the CPU has ``feature``, or ``unless`` it has."""

    address: int
    replacement: int
    feature: int
    unless: bool
    direct_call: bool
    length: int
    replacement_length: int


def read_alternatives(code: Code, start: int, size: int, entry: int) -> list[Alternative]:
    """The entries of a table whose entries have ``entry`` bytes."""
    form = _ALTERNATIVES.get(entry)
    found: list[Alternative] = []
    if form is None:
        return found
    for at, fields in zip(
        range(start, start + size, entry), form.iter_unpack(code.read(start, size // entry * entry)), strict=False
    ):
        site, replacement, feature, *flags, length, replacement_length = fields
        unless = bool(flags[0] & _NOT) if flags else bool(feature & _OLD_NOT)
        found.append(
            Alternative(
                address=at + site,
                replacement=at + 4 + replacement,
                feature=feature if flags else feature & ~_OLD_NOT,
                unless=unless,
                direct_call=bool(flags and flags[0] & _DIRECT_CALL),
                length=length,
                replacement_length=replacement_length,
            )
        )
    return found


def apply_alternatives(code: Code, start: int, size: int, rules: Rules, cpu: Cpu) -> None:
    """Choose among instruction sequences by CPU feature, first entry to last: a later one may replace an earlier."""
    entries = read_alternatives(code, start, size, rules.sizes.get("alt_instr", 0))
    replace_one = _replace_by_block if rules.memories else _replace_simply
    longest: dict[int, int] = {}
    for entry in entries:
        longest[entry.address] = max(entry.length, longest.get(entry.address, 0))
    for entry in entries:
        length = longest[entry.address] if rules.memories else entry.length
        made = None
        if cpu.has(entry.feature) != entry.unless:
            made = replace_one(code, entry, length, cpu)
        if made is None:
            made = code.read(entry.address, length)
            if len(made) < length:
                continue
        if rules.memories:
            made = optimize_nop_runs(made)
        else:
            beyond = code.read(entry.address + len(made), 15)
            made = optimize_single_nops(made + beyond, length)[: len(made)]
        code.write(entry.address, made, "alternative")


def _replace_simply(code: Code, entry: Alternative, length: int, cpu: Cpu) -> bytes:
    """The replacement with a lone call or jump fixed up for its new place, padded with NOPs."""
    made = bytearray(code.read(entry.replacement, entry.replacement_length))
    if len(made) == 5 and made[0] == CALL:
        (distance,) = _S32.unpack_from(made, 1)
        _S32.pack_into(made, 1, _signed32(distance + entry.replacement - entry.address))
    elif len(made) == 5 and made[0] in (JMP32, JMP8):
        (distance,) = _S32.unpack_from(made, 1)
        made[:] = _shortest_jump(entry.replacement + 5 + distance - entry.address)
    return bytes(made).ljust(length, bytes((NOP,)))


def _shortest_jump(distance: int) -> bytes:
    """A jump of 5 bytes in all to ``distance`` from its start; backwards the kernel never takes the short form."""
    if 0 <= distance <= 127 + 2:
        return bytes((JMP8, distance - 2 & 0xFF)) + NOPS[3]
    return bytes((JMP32,)) + _S32.pack(_signed32(distance - 5))


def _replace_by_block(code: Code, entry: Alternative, length: int, cpu: Cpu) -> bytes | None:
    """The replacement with every distance that leads out of it fixed up, padded with NOPs."""
    made = bytearray(code.read(entry.replacement, entry.replacement_length))
    if entry.direct_call:
        direct = _direct_call(code, entry, bytes(made), cpu)
        if direct is None:
            return None
        made = bytearray(direct)
    made += bytes((NOP,)) * (length - len(made))
    moved = entry.replacement - entry.address
    at = 0
    while at < length:
        insn = decode(made, at)
        if insn is None:
            break
        after = at + insn.length
        if insn.branch is not None and _is_moved_branch(insn.opcode):
            distance = _S32.unpack_from(made, at + 1)[0] + moved + 3 if insn.opcode[0] == JMP32 else 128
            _move(made, at, after, insn.branch, entry.replacement_length, moved)
            if -128 <= distance <= 127:
                made[at:after] = bytes((JMP8, distance & 0xFF)) + bytes((INT3,)) * (insn.length - 2)
        if insn.rip is not None:
            _move(made, at, after, (insn.rip, 4), entry.replacement_length, moved)
        at = after
    return bytes(made)


def _move(made: bytearray, at: int, after: int, part: tuple[int, int], length: int, moved: int) -> None:
    """Correct one distance unless it leads to a place within the replacement."""
    place, width = at + part[0], part[1]
    distance = int.from_bytes(made[place : place + width], "little", signed=True)
    if not 0 <= after + distance <= length:
        made[place : place + width] = (distance + moved & (1 << 8 * width) - 1).to_bytes(width, "little")


def _is_moved_branch(opcode: bytes) -> bool:
    return opcode[0] in (CALL, JMP32, JMP8) or opcode[0] & 0xF0 == 0x70 or _is_near_branch(opcode)


def _direct_call(code: Code, entry: Alternative, made: bytes, cpu: Cpu) -> bytes | None:
    """``call BUG_func`` redirected to what the original ``call *pointer(%rip)`` would call."""
    original = code.read(entry.address, 6)
    if cpu.pointer_at is None or made[:1] != bytes((CALL,)) or original[:2] != b"\xff\x15":
        return None
    (displacement,) = _S32.unpack_from(original, 2)
    target = cpu.pointer_at(entry.address + 6 + displacement) or cpu.bug_func
    (distance,) = _S32.unpack_from(made, 1)
    return bytes((CALL,)) + _S32.pack(_signed32(distance + target - cpu.bug_func))


# NOPs.


def old_nops(length: int) -> bytes:
    """``length`` bytes of NOPs, each as long as can be, at most 8."""
    made = b""
    while length > 0:
        step = min(length, _MAX_OLD_NOP)
        made += NOPS[step]
        length -= step
    return made


def optimize_single_nops(code: bytes, length: int) -> bytes:
    """Runs of one-byte NOPs in the first ``length`` bytes made into long ones; the bytes behind only help decoding."""
    made = bytearray(code)
    at = 0
    while at < length:
        insn = decode(made, at)
        if insn is None:
            break
        if insn.length == 1 and made[at] == NOP:
            end = at
            while end < length and made[end] == NOP:
                end += 1
            if end - at > 1:
                made[at:end] = old_nops(end - at)
            at = end
        else:
            at += insn.length
    return bytes(made)


def optimize_nop_runs(code: bytes) -> bytes:
    """Runs of any NOPs made into one instruction: a long NOP, or a jump over INT3s."""
    made = bytearray(code)
    at = 0
    while at < len(made):
        insn = decode(made, at)
        if insn is None:
            break
        end = at + insn.length
        if _is_nop(insn):
            if end == len(made):
                break
            while (following := decode(made, end)) is not None and end < len(made) and _is_nop(following):
                end += following.length
            made[at:end] = one_nop(end - at)
        at = end
    return bytes(made)


def _is_nop(insn: Insn) -> bool:
    return (insn.opcode == b"\x90" and not insn.prefixes.startswith(b"\xf3")) or insn.opcode == _NOPL


def one_nop(length: int) -> bytes:
    """``length`` bytes that do nothing and are one instruction."""
    if length < len(NOPS):
        return NOPS[length]
    if length < 128:
        jump = bytes((JMP8, length - 2))
    else:
        jump = bytes((JMP32,)) + _S32.pack(length - 5)
    return jump.ljust(length, bytes((INT3,)))


# The rest.


def apply_ibt_endbr(code: Code, start: int, size: int) -> None:
    """Overwrite the landing marks of functions that nothing calls indirectly."""
    for address in sites(code, start, size):
        if code.read(address, 4) in (ENDBR64, ENDBR32):
            code.write(address, ENDBR_POISON, "endbr")
        else:
            code.doubts.append(f"no landing mark at {address:#x}")


def apply_smp_unlock(code: Code, start: int, size: int, text: int, text_end: int) -> None:
    """On one CPU: turn lock prefixes within the text into prefixes that do nothing."""
    table, found = code.read(start, size // 4 * 4), code.find(text)
    memory, base = found or (memoryview(b""), 0)
    for number, (distance,) in enumerate(_S32.iter_unpack(table)):
        address = start + 4 * number + distance
        at = base + address - text
        if distance and text <= address < text_end and at < len(memory) and memory[at] == 0xF0:
            code.write(address, b"\x3e", "lock")
