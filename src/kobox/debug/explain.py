"""What a report means in plain words: what happened, what usually causes it, what to do. Facts first, guesses named.

A table from ``Kind`` to a function; each looks at addresses, registers and the trace only. No file is read here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from kobox.abi.errno_names import MAX_ERRNO, name_of
from kobox.abi.traps import PF
from kobox.debug.klog import PAGE_SIZE, access_name
from kobox.debug.records import Access, Kind, MemoryOperand, Oops


@dataclass(frozen=True, slots=True)
class Explanation:
    """``what`` is certain; ``why`` are the usual causes that fit; ``advice`` is what to try or look at."""

    what: str
    why: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()


def explain(oops: Oops, access: Access | None = None) -> Explanation:
    return _EXPLAINERS.get(oops.kind, _other)(oops, access)


def culprit(oops: Oops) -> str | None:
    """The module to look at first: where it happened, else the nearest caller that is in a module."""
    if oops.symbol and oops.symbol.module:
        return oops.symbol.module
    return next((f.symbol.module for f in oops.frames if f.reliable and f.symbol and f.symbol.module), None)


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A value that betrays itself: kernel code writes it on purpose, or it cannot be a pointer."""

    low: int
    high: int
    what: str
    advice: str


_MASK = (1 << 64) - 1
_PATTERNS: tuple[_Pattern, ...] = (
    _Pattern(
        0xDEAD000000000100,
        0xDEAD000000000121,
        "LIST_POISON1, which list_del() leaves in an entry's next pointer",
        "the entry was used after it had been taken off its list, or was deleted twice",
    ),
    _Pattern(
        0xDEAD000000000122,
        0xDEAD0000000001FF,
        "LIST_POISON2, which list_del() leaves in an entry's prev pointer",
        "the entry was used after it had been taken off its list, or was deleted twice",
    ),
    _Pattern(
        0x6B6B6B6B6B6B6A6B,
        0x6B6B6B6B6B6B7B6B,
        "slab poison 0x6b: memory that was already freed",
        "use after free: find who freed it (slub_debug=U shows both stacks)",
    ),
    _Pattern(
        0x5A5A5A5A5A5A595A,
        0x5A5A5A5A5A5A6A5A,
        "slab poison 0x5a: memory that was allocated but never written",
        "a field was used before it was initialised: kzalloc() instead of kmalloc() would give NULL here",
    ),
    _Pattern(
        0xAAAAAAAAAAAAA9AA,
        0xAAAAAAAAAAAABAAA,
        "the fill pattern of uninitialised stack variables",
        "a local variable was used before it was set",
    ),
    _Pattern(
        0xCCCCCCCCCCCCCBCC,
        0xCCCCCCCCCCCCDCCC,
        "0xcc, the kernel's poison for freed init memory",
        "an __init function or __initdata object was used after the module had finished loading",
    ),
    _Pattern(
        0xDFFFFC0000000000,
        0xDFFFFC0000000FFF,
        "the KASAN shadow of the first page",
        "a NULL pointer (with a small offset) was dereferenced under KASAN",
    ),
)

_USER_TOP = 0x0000_7FFF_FFFF_FFFF
_KERNEL_BOTTOM = 0xFFFF_8000_0000_0000
_MODULES = range(0xFFFF_FFFF_A000_0000, 0xFFFF_FFFF_FF00_0000)


def _pattern_of(value: int) -> tuple[str, str] | None:
    """What a bad pointer value is, and what that suggests."""
    for pattern in _PATTERNS:
        if pattern.low <= value <= pattern.high:
            return pattern.what, pattern.advice
    if _MASK - MAX_ERRNO < value <= _MASK:
        error = name_of(-((value ^ _MASK) + 1))
        return f"an error pointer, ERR_PTR(-{error})", "the result of a call was not checked with IS_ERR() before use"
    text = value.to_bytes(8, "little")
    if all(0x20 <= byte < 0x7F for byte in text):
        return f"text ({text.decode()!r})", "a string was written over the pointer: look for a buffer overflow"
    return None


def _base_value(oops: Oops, access: Access | None) -> tuple[str, int] | None:
    """Name and value of the pointer that the faulting instruction went through, when both are known."""
    if access is not None and access.value is not None:
        return access.variable, access.value
    operand = _operand(oops)
    if operand is None or operand.base is None or operand.base == "rip" or oops.registers is None:
        return None
    named = {"rsp": oops.registers.sp} | {
        name.lower().replace("r0", "r"): value for name, value in oops.registers.general().items()
    }
    return (operand.base, named[operand.base]) if operand.base in named else None


def _operand(oops: Oops) -> MemoryOperand | None:
    return oops.faulting_instruction.memory if oops.faulting_instruction else None


def _member_words(access: Access | None) -> str:
    if access is None:
        return ""
    likely = f", likely argument {access.argument}" if access.argument else ""
    whom = f"`{access.variable}` ({access.type_name}{likely})"
    if access.member:
        return f"{whom}, member `{access.member}` at offset {access.offset:#x}"
    return f"{whom} at offset {access.offset:#x}"


def _null(oops: Oops, access: Access | None) -> Explanation:
    fault = oops.fault
    address = fault.address if fault else 0
    did = access_name(PF(fault.error_code)) if fault else "access"
    if access is not None:
        pointer = address - access.offset if access.value is None else access.value
        what = f"{did} through {_member_words(access)}: the pointer is "
        what += f"{pointer:#x}, NULL plus the offset of a member before it" if pointer else "NULL"
    elif (operand := _operand(oops)) and operand.base is None and operand.index is None:
        what = f"{did} of the constant address {address:#x}, which stands in the instruction itself"
    elif address:
        what = f"{did} at offset {address:#x} from a NULL pointer"
    else:
        what = f"{did} through a NULL pointer"
    why = ["a pointer was not set, or a call that can fail returned NULL and was not checked"]
    if address and access is None:
        why.append(f"the member at offset {address:#x} of a structure was meant (pahole or --module shows which)")
    return Explanation(what, tuple(why), ("check the pointer before its first use on this path",))


def _page_fault(oops: Oops, access: Access | None) -> Explanation:
    if oops.fault is None:
        return Explanation("an address that is not mapped, or not for this kind of access, was used")
    address, code = oops.fault.address, PF(oops.fault.error_code)
    did = access_name(code)
    through = f" through {_member_words(access)}" if access else ""
    based = _base_value(oops, access)
    known = (_pattern_of(based[1]) if based else None) or _pattern_of(address)
    if known:
        whom = f"`{based[0]}`" if based else "the address"
        return Explanation(f"{did} of {address:#x}{through}: {whom} holds {known[0]}", (known[1],))
    what = f"{did} of {address:#x}{through}"
    for fits, why, advice in _REGIONS:
        if fits(address, code):
            return Explanation(what, (why,), (advice,))
    return Explanation(what, ("the pointer was overwritten or never initialised",), ("run it under KASAN",))


_Fits = Callable[[int, PF], bool]
_REGIONS: tuple[tuple[_Fits, str, str], ...] = (
    (
        lambda address, code: bool(code & PF.PROT) and bool(code & PF.WRITE) and address >= _KERNEL_BOTTOM,
        "the page is mapped but read-only: constant data, kernel or module text, or data marked __ro_after_init",
        "do not write to const objects or string literals; data that must change cannot be __ro_after_init",
    ),
    (
        lambda address, code: address <= _USER_TOP,
        "that is a user-space address (or a small number taken for a pointer)",
        "user memory is reached with copy_from_user(), copy_to_user(), get_user() and put_user() only",
    ),
    (
        lambda address, code: address in _MODULES,
        "the address lies where modules live, and nothing is there now: a module that was unloaded, or its init code",
        "a timer, work item, callback or file operation outlived its module: stop them in the exit function",
    ),
    (
        lambda address, code: address >= _KERNEL_BOTTOM,
        "a kernel address that is not mapped: an index out of range, freed vmalloc memory, or a corrupted pointer",
        "run it under KASAN, or with slub_debug=FZPU",
    ),
)


def _execute(oops: Oops, access: Access | None) -> Explanation:
    address = oops.fault.address if oops.fault else None
    caller = next((frame.symbol for frame in oops.frames if frame.reliable and frame.symbol), None)
    by = f"; the call is in {caller.name}" if caller else ""
    if address is not None and address < PAGE_SIZE:
        return Explanation(
            f"a function pointer that is NULL was called{by}",
            ("an operations structure or callback was registered without this function",),
            ("set the callback, or check it before the call",),
        )
    return Explanation(
        f"the CPU was sent to {address:#x}, which is not code{by}"
        if address is not None
        else f"the CPU was sent to something that is not code{by}",
        ("a function pointer was overwritten, or its object was freed", "or the function's module was unloaded"),
        ("look at where the pointer comes from in the caller",),
    )


def _protection(oops: Oops, access: Access | None) -> Explanation:
    found = re.search(r"address (0x[0-9a-f]+)", oops.description)
    based = _base_value(oops, access)
    if "non-canonical" in oops.description and found:
        address = int(found[1], 16)
        known = (_pattern_of(based[1]) if based else None) or _pattern_of(address)
        through = f" through {_member_words(access)}" if access else ""
        if known:
            return Explanation(f"access to {address:#x}{through}: the pointer holds {known[0]}", (known[1],))
        return Explanation(
            f"access to {address:#x}{through}, which no pointer can be",
            ("the pointer was overwritten, or its memory freed and used for something else",),
            ("run it under KASAN; compare the value with text or with poison patterns",),
        )
    return Explanation(
        "the CPU refused the instruction",
        (
            "an MSR or I/O port that does not exist, or a reserved bit",
            "or an SSE instruction on a misaligned address (movaps needs 16 bytes)",
        ),
    )


def _bug(oops: Oops, access: Access | None) -> Explanation:
    where = f" at {oops.bug_at}" if oops.bug_at else ""
    said = f": {oops.message}" if oops.message else ""
    known = _known_message(oops.message)
    return Explanation(
        f"a BUG() or BUG_ON(){where} fired: the code met a state that it holds for impossible{said}",
        known or ("the condition in the source line tells which",),
    )


def _warning(oops: Oops, access: Access | None) -> Explanation:
    where = f" at {oops.bug_at}" if oops.bug_at else ""
    said = f": {oops.message.splitlines()[0]}" if oops.message else ""
    return Explanation(
        f"a WARN(){where} fired{said}; the kernel went on",
        _known_message(oops.message) or ("the condition in the source line tells which",),
        ("the first warning of a boot counts: later ones may only follow from it",),
    )


_MESSAGES: tuple[tuple[str, str], ...] = (
    ("refcount_t: underflow", "an object's reference was dropped once too often"),
    ("refcount_t: addition on 0", "a reference was taken on an object that was already being freed"),
    ("refcount_t: saturated", "references are taken and never given back, or the object is garbage"),
    ("list_add corruption", "a list was changed without its lock, or its entry was freed or added twice"),
    ("list_del corruption", "the entry was deleted twice, or freed while on the list"),
    ("cannot create duplicate filename", "the name is taken: registered twice, or not removed by the last unload"),
    ("ODEBUG", "a timer or work item was freed, or set up again, while still active: cancel it first"),
    ("DEBUG_LOCKS_WARN_ON", "a lock was used before it was initialised, or after it was freed"),
    ("do not call blocking ops when !TASK_RUNNING", "the task sleeps although it had already announced its wait"),
    ("memcpy: detected field-spanning write", "a copy is larger than the member it starts at"),
    ("kobject: ", "a kobject was used in a state or with a name that sysfs refuses"),
    ("percpu", "the module's static per-CPU data is larger than the reserve for modules"),
    ("Please remove unsupported", "the format string uses a conversion that the kernel's printf lacks"),
)


def _known_message(message: str) -> tuple[str, ...]:
    return tuple(meaning for text, meaning in _MESSAGES if text in message)


def _invalid_opcode(oops: Oops, access: Access | None) -> Explanation:
    return Explanation(
        "the CPU met an instruction that it does not know",
        (
            "an undefined-behaviour trap or unreachable code that was reached after all (ud2)",
            "or code that was overwritten, or built for a newer CPU",
        ),
    )


def _divide(oops: Oops, access: Access | None) -> Explanation:
    instruction = oops.faulting_instruction
    words = f" ({instruction.text})" if instruction else ""
    return Explanation(
        f"a division by zero, or a quotient that does not fit its register{words}",
        ("the divisor came from outside (a parameter, a device, user space) and was not checked",),
        ("check the divisor; for 64-bit values use div64_u64() and friends",),
    )


def _int3(oops: Oops, access: Access | None) -> Explanation:
    return Explanation(
        "a breakpoint instruction (int3) that no debugger or probe had set was executed",
        ("padding between functions was run: a bad jump or a missing return", "or the code calls it on purpose"),
    )


def _stack(oops: Oops, access: Access | None) -> Explanation:
    names = Counter(frame.symbol.name for frame in oops.frames if frame.symbol)
    repeated = [f"{name} ({count} times in the trace)" for name, count in names.most_common(3) if count > 2]
    why = [f"recursion: {', '.join(repeated)}"] if repeated else ["deep recursion, or large variables on the stack"]
    return Explanation(
        "the task's kernel stack (16 KiB) was used up",
        tuple(why),
        ("recursion needs a bound; large arrays belong into kmalloc() memory",),
    )


def _lockup(oops: Oops, access: Access | None) -> Explanation:
    where = f" in {oops.symbol.name}" if oops.symbol else ""
    length = f" for {oops.seconds} s" if oops.seconds else ""
    return Explanation(
        f"the CPU did not leave kernel code{where}{length}",
        ("an endless loop, a loop over far too much, or a spinlock that is never released",),
        ("give the loop a bound, or cond_resched() where sleeping is allowed",),
    )


_SANITIZERS: tuple[tuple[str, str, str], ...] = (
    ("use-after-free", "memory was used after it had been freed", "the report's second and third stack show who"),
    ("double-free", "an object was freed twice", "the report shows both places that freed it"),
    ("out-of-bounds", "memory outside an object or array was reached", "compare the index or length with the size"),
    ("invalid-free", "something was freed that no allocator gave out", "free the pointer that the allocation returned"),
    ("null-ptr-deref", "a NULL pointer was dereferenced", "check the pointer before its first use on this path"),
    ("wild-memory-access", "a pointer that was never valid was used", "look for an uninitialised or overwritten field"),
    ("uninit-value", "a value was used that nobody had written", "initialise it, or use kzalloc()"),
    ("data-race", "two CPUs reached the same memory without a lock, at least one writing", "lock it, or READ_ONCE()"),
    ("shift-out-of-bounds", "a shift by a negative or too large count", "check the count"),
    ("overflow", "an integer calculation overflowed", "use a wider type or the check_*_overflow() helpers"),
    ("misaligned", "memory was reached through a pointer of wrong alignment", "use get_unaligned()"),
    ("memory corruption", "the guard around an object was overwritten", "a write went beyond the object's end"),
)


def _sanitizer(oops: Oops, access: Access | None) -> Explanation:
    tool = re.search(r"KASAN|KFENCE|KCSAN|KMSAN|UBSAN", oops.title)
    by = f", found by {tool[0]}" if tool else ""
    for text, what, advice in _SANITIZERS:
        if text in oops.title:
            return Explanation(f"{what}{by}", (), (advice,))
    return Explanation(oops.title)


_PANICS: tuple[tuple[str, str], ...] = (
    ("Fatal exception in interrupt", "the crash happened in an interrupt, where no task can be killed in its place"),
    ("Fatal exception", "the kernel is set to panic on every oops (panic_on_oops)"),
    ("panic_on_warn", "the kernel is set to panic on every warning"),
    ("panic_on_taint", "a taint flag was set that this kernel is set to panic on"),
    ("Unable to mount root fs", "the root device, its driver or its file system is missing: look at the initramfs"),
    ("Attempted to kill init", "the first process ended or crashed"),
    ("hung_task", "a task hung, and the kernel is set to panic on that"),
    ("softlockup", "a CPU was locked up, and the kernel is set to panic on that"),
    ("Out of memory", "memory ran out, and the kernel is set to panic on that or nothing could be killed"),
)


def _panic(oops: Oops, access: Access | None) -> Explanation:
    said = oops.message or oops.panic or oops.title
    return Explanation(f"the kernel stopped: {said}", tuple(why for text, why in _PANICS if text in said)[:1])


def _simple(what: str, *why: str) -> Callable[[Oops, Access | None], Explanation]:
    return lambda oops, access: Explanation(what, why)


def _other(oops: Oops, access: Access | None) -> Explanation:
    return Explanation(oops.title)


_EXPLAINERS: dict[Kind, Callable[[Oops, Access | None], Explanation]] = {
    Kind.NULL_DEREFERENCE: _null,
    Kind.PAGE_FAULT: _page_fault,
    Kind.BAD_EXECUTE: _execute,
    Kind.GENERAL_PROTECTION: _protection,
    Kind.BUG: _bug,
    Kind.WARNING: _warning,
    Kind.INVALID_OPCODE: _invalid_opcode,
    Kind.DIVIDE_ERROR: _divide,
    Kind.INT3: _int3,
    Kind.STACK_OVERFLOW: _stack,
    Kind.DOUBLE_FAULT: _stack,
    Kind.SOFT_LOCKUP: _lockup,
    Kind.HARD_LOCKUP: _lockup,
    Kind.HUNG_TASK: _simple(
        "a task waited without being woken for longer than the limit",
        "a lock that its holder never releases, a lost wake-up, or a device that does not answer",
    ),
    Kind.RCU_STALL: _simple(
        "RCU could not finish a grace period: some CPU stayed in a reader or never went idle",
        "a loop under rcu_read_lock() or with preemption or interrupts off",
    ),
    Kind.SCHEDULING_WHILE_ATOMIC: _simple(
        "code slept where it must not: in an interrupt, or while holding a spinlock",
        "msleep(), mutex_lock(), kmalloc(GFP_KERNEL) or copy_to_user() under a spinlock or in a timer",
    ),
    Kind.SLEEPING_IN_ATOMIC: _simple(
        "a function that may sleep was called where sleeping is not allowed",
        "a spinlock is held, interrupts are off, or this is a timer, tasklet or interrupt handler",
    ),
    Kind.MEMORY_CORRUPTION: _simple(
        "memory management found its data overwritten",
        "a write beyond an object, a double free, or use after free some time before this report",
    ),
    Kind.LOCKDEP: _simple(
        "the lock checker proved that these locks can deadlock, though they did not now",
        "two locks taken in both orders, or one taken both in and out of interrupts",
    ),
    Kind.SANITIZER: _sanitizer,
    Kind.PANIC: _panic,
    Kind.PLACES: _simple(""),
    Kind.STACK_DUMP: _simple("a stack dump: the code asked for it, nothing crashed"),
}
