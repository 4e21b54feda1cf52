"""The memory checker: what modules allocate is tracked, guarded and, when freed, kept poisoned for a while.

Only modules see it. When the loader binds a module's symbol to a function of the allocator family, it binds a stub
instead whose handler (``kapi.slab``) calls the guest's own function, with a little more size where the slab's slack is
too small for a redzone. The object is the guest's own, so the kernel may free it; ``heapcheck_guard`` tells when it
does. The guest's allocators run untouched, and nothing of this exists until a module needs it.

A handler is a generator: it yields ``(function, argument, …)``, is sent the result, and its value is the stub's result.
All it needs between two steps is its frame on the guest's stack, so calls may sleep and be interleaved.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass

from kobox.abi.declare import Calls, Declared, ExportTable
from kobox.errors import GuestError, NotModelled
from kobox.kernel import heapcheck_guard as guarding
from kobox.kernel.env import HEAP_BYTES, Steps
from kobox.kernel.guest import Guest
from kobox.kernel.heapcheck_records import (
    CacheFacts,
    Fault,
    HeapObject,
    HeapState,
    MemoryFault,
    ModuleCode,
    Placed,
    Pool,
    Trace,
)
from kobox.kernel.stub_frame import (
    ARGUMENTS,
    AT_ENTRY,
    AT_RETURN,
    FRAME,
    FRAME_BELOW,
    R11,
    RAX,
    RBP,
    RIP,
    RSP,
    STUB,
)
from kobox.link import Layout, LoadView
from kobox.machine.traps import Trap

REDZONE, POISON = 0xCC, 0x6B
REDZONE_MAX, REDZONE_MIN = 256, 8
QUARANTINE_OBJECTS, QUARANTINE_BYTES = 512, 8 << 20
POISONED_MAX = 1 << 20
"""A larger object goes back at once."""
ENLARGED_MAX = 512 << 10
"""A larger request is passed on as it is: asking for more could fail where the module's own request would not."""
STACK_COPY = 1024
ZERO_SIZE_PTR = 16
"""What an allocation of nothing answers; addresses up to it are not memory (include/linux/slab.h)."""
_BUCKETS = (8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192)
_PAGE = 4096
_THREAD_SIZE = 16384
_LEAK_LINES = 16
_GUARDED = (
    ("kfree", "rdi"), ("kmem_cache_free", "rsi"), ("kmem_cache_free_bulk", ""), ("vfree", "rdi"),
    ("vfree_atomic", "rdi"), ("ksize", "rdi"), ("krealloc", "rdi"), ("krealloc_noprof", "rdi"),
)  # fmt: skip
"""Functions by which the kernel itself frees or grows an object, and the register that points to it."""
_GIVING_BACK = {Pool.KMALLOC: "kfree", Pool.CACHE: "kmem_cache_free", Pool.VMALLOC: "vfree"}

Release = Generator[tuple[int, ...], int, tuple[int, ...]]


@dataclass(slots=True)
class Call:
    """One call of a stub in flight. ``owner``: the module whose code made it; None: the kernel's."""

    base: int
    bp: int
    ip: int
    real: int
    owner: ModuleCode | None
    stack: bytes
    """From behind the return address on."""
    trace: Trace | None = None
    leave_to: tuple[int, ...] = ()
    """What the stub becomes when its handler is done: a call in its caller's place, which does not come back here."""
    steps: Calls = None  # type: ignore[assignment]  # made with the record as its first argument
    encode: Callable[[object], int | None] = None  # type: ignore[assignment]


class HeapCheck:
    """The checker of one guest. ``call`` is the call that a handler serves right now."""

    call: Call

    def __init__(self, guest: Guest, tables: Iterable[ExportTable]) -> None:
        self.guest = guest
        self.state = HeapState()
        self._wrapped: dict[str, Declared] = {
            name: declared for table in tables for declared in table for name in (declared.name, *declared.also)
        }
        self._guards: dict[str, int] = {}
        self._guard_stubs: dict[str, int] = {}
        self.unwatched: list[str] = []
        """Functions that no filter could be put before: what the kernel frees by them is not noticed."""
        self._natives: dict[str, int] = {}
        """Guarded functions without their filter."""
        self._reals: dict[tuple[str, ...], int] = {}
        self._free: list[int] = []
        """Stubs of modules that a reset has forgotten."""
        self._code: dict[int, bytes] = {}
        """Everything this room has stored in kobox's pages: a reset of the memory forgets it."""
        self._stored = False
        self._flights: dict[int, Call] = {}
        self._holders: dict[str, ModuleCode] = {}
        self._memory, self._ram = guest.machine.memory, guest.machine.ram_size
        self._linear = guest.machine.pages.linear_base
        self._table = guest.machine.area.end - HEAP_BYTES
        self._table_at = 0
        self._text = self._table + guarding.TABLE_SIZE

    # -- binding --------------------------------------------------------------------------------------------------

    def stub_for(self, name: str, module: str) -> int | None:
        """The address that a module gets for a symbol; None: the guest's own will do.

        Each module has its own, so that a call in place of a return (``jmp kfree``) and a pointer to the function that
        is handed to the kernel are known for its.
        """
        declared = self._wrapped.get(name)
        if declared is None or not self.guest.has(name):
            return None
        self._store()
        known = self.state.stubs.get((name, module))
        if known is None:
            known = self.state.stubs[name, module] = self._stub(name, declared, self.guest.symbol(name), module)
        return known

    def _stub(self, name: str, declared: Declared, real: int, holder: str) -> int:
        address = self._free.pop() if self._free else self.guest.machine.area.code(STUB)
        self._code[address] = STUB
        self.guest.write(address, STUB)
        self._trap(address, name, declared, real, holder)
        return address

    def _trap(self, address: int, name: str, declared: Declared, real: int, holder: str) -> None:
        """Serve the stub that lies there."""
        area = self.guest.machine.area
        enter = self._entering(declared, real, holder)
        for offset, handler in ((AT_ENTRY, enter), (AT_RETURN, self._on_return)):
            behind = address + offset
            area.traps[behind] = Trap(f"heap: {name}", handler, behind + 1)

    def _store(self) -> None:
        """After a reset: put the stubs, and the filters in the kernel's functions, where they were."""
        if not self._stored:
            self._stored = True
            for address, code in self._code.items():
                self.guest.write(address, code)
        if not self.state.guarded:
            self.state.guarded = True
            for name, pointer in _GUARDED:
                if self.guest.has(name) and name not in self.unwatched:
                    try:
                        self._guard(name, pointer)
                    except NotModelled:
                        self.unwatched.append(name)
                        self._natives.pop(name, None)

    def _guard(self, name: str, pointer: str) -> None:
        place = self._guards.get(name)
        if place is None:
            area = self.guest.machine.area
            place = area.code(bytes(64))
            self._natives[name] = place + guarding.native_offset(pointer)
            stub = self._guard_stubs[name] = self._stub(name, self._wrapped[name], self._natives[name], "")
            code = guarding.guard(self.guest, name, pointer, stub, self._table, place)
            if len(code) > 64:
                raise NotModelled(f"the filter of {name} does not fit its place")
            self._guards[name] = place
            self._code[place] = code
            self.guest.write(place, code)
        guarding.attach(self.guest, name, place)

    # -- calls in flight ------------------------------------------------------------------------------------------

    def _entering(self, declared: Declared, real: int, holder: str) -> Callable[[], None]:
        function, encode = declared.function, declared.encode
        decoders = [ctype.decode for _, ctype in declared.parameters]
        few = len(decoders) <= 6
        cpu, pages = self.guest.machine.cpu, self.guest.machine.pages

        def enter() -> None:
            base = cpu.read(RBP)
            end = min(base + 16 + STACK_COPY, (base | _THREAD_SIZE - 1) + 1)
            try:
                data = pages.read(base - FRAME_BELOW, end - base + FRAME_BELOW)
            except GuestError:  # an interrupt's stack may end at any page
                end = (base + 15 | _PAGE - 1) + 1
                data = pages.read(base - FRAME_BELOW, end - base + FRAME_BELOW)
            *registers, bp, ip = FRAME.unpack_from(data)
            call = Call(base, bp, ip, real, self._holders.get(holder), data[FRAME.size :])
            if not few:
                registers += struct.unpack_from(f"<{len(decoders) - 6}Q", call.stack)
            arguments = [decode(raw) for decode, raw in zip(decoders, registers, strict=False)]
            call.steps, call.encode = function(self, *arguments), encode
            self._flights[base] = call
            self._step(call, None)

        return enter

    def _on_return(self) -> None:
        cpu = self.guest.machine.cpu
        call = self._flights[cpu.read(RBP)]
        self._step(call, cpu.read(RAX))

    def _step(self, call: Call, result: int | None) -> None:
        cpu = self.guest.machine.cpu
        self.call = call
        try:
            function, *arguments = call.steps.send(result) if result is not None else next(call.steps)
        except GuestError:
            if result is not None:
                raise
            # a pointer that leads nowhere: the guest's own function shall find out
            del self._flights[call.base]
            registers = FRAME.unpack(self.guest.read(call.base - FRAME_BELOW, FRAME.size))[:6]
            call.leave_to = (call.real, *registers)
            self._leave(call)
            return
        except StopIteration as ended:
            del self._flights[call.base]
            if call.leave_to:
                self._leave(call)
                return
            value = call.encode(ended.value)
            cpu.write(R11, 0)
            if value is not None:
                cpu.write(RAX, value)
            return
        for register, value in zip(ARGUMENTS, arguments, strict=False):
            cpu.write(register, value & 0xFFFF_FFFF_FFFF_FFFF)
        rsp = call.base - FRAME_BELOW
        if len(arguments) > 6:
            rest = arguments[6:]
            rsp -= (8 * len(rest) + 15) & ~15
            self.guest.write(rsp, struct.pack(f"<{len(rest)}Q", *rest))
        cpu.write(RSP, rsp)
        cpu.write(RAX, 0)  # the number of vector registers, where the function takes variable arguments
        cpu.write(R11, function)

    def leave_to(self, *arguments: int) -> None:
        """When the handler ends, go on in the guest's own function as if the stub had not been there."""
        self.call.leave_to = (self.call.real, *arguments)

    def leave_with(self, call: tuple[int, ...]) -> None:
        """As ``leave_to`` for another function: ``(function, argument, …)``."""
        self.call.leave_to = call

    def _leave(self, call: Call) -> None:
        cpu = self.guest.machine.cpu
        function, *arguments = call.leave_to
        for register, value in zip(ARGUMENTS, arguments, strict=False):
            cpu.write(register, value)
        cpu.write(RSP, call.base + 8)
        cpu.write(RBP, call.bp)
        cpu.write(RIP, function)

    def stack_words(self, count: int) -> tuple[int, ...]:
        """What lies behind the present call's return address: its seventh argument and on, as far as there are any."""
        stack = self.call.stack
        return struct.unpack_from(f"<{min(count, len(stack) // 8)}Q", stack)

    def trace(self) -> Trace:
        """Where the present call was made."""
        call = self.call
        if call.trace is None:
            now = self.guest.machine.clock.now
            call.trace = Trace(call.ip, call.base + 16, call.bp, call.stack, now, self.state.codes)
        return call.trace

    # -- modules --------------------------------------------------------------------------------------------------

    def module_linked(
        self, name: str, view: LoadView, layout: Layout, bases: dict[str, int], addresses: list[int],
        memory: dict[str, bytearray],
    ) -> ModuleCode:  # fmt: skip
        """A module's code is about to be stored: calls from it are its own from now on."""
        code = ModuleCode(name, view, layout, bases, addresses)
        code.memory = memory
        self._set_codes((*self.state.codes, code))
        return code

    def module_gone(self, name: str) -> Steps:
        """A module's last code has run, its memory is still there: check and report what it leaves behind."""
        code = next((code for code in reversed(self.state.codes) if code.name == name), None)
        if code is None:
            return
        if self._left_by(code):
            # work that frees may be on its way: callbacks of RCU, work queues
            for function, *arguments in (("rcu_barrier",), ("msleep", 10)):
                yield (self.guest.symbol(function), *arguments)
        for pool, kept in self.state.quarantine.items():
            for one in [one for one in kept.values() if one.owner is code]:
                yield (yield from self._let_go(pool, one))
        left = self._left_by(code)
        for number, one in enumerate(left):
            yield from self._check_redzone(one, None)
            text = f"leak: {one.size} bytes at {one.address:#x}, allocated by {self.place_of(one.allocated)}"
            fault = MemoryFault(
                Fault.LEAK, f"kobox: {text}, were not freed", one.address, one.size, name,
                self.guest.machine.clock.now, one.allocated,
            )  # fmt: skip
            yield from self._report(fault, quiet=number >= _LEAK_LINES)
        if len(left) > _LEAK_LINES:
            yield from self._say(f"kobox: leak: {len(left) - _LEAK_LINES} more allocations of {name} were not freed")
        self._set_codes(tuple(one for one in self.state.codes if one is not code))

    def _left_by(self, code: ModuleCode) -> list[HeapObject]:
        return [one for one in self.state.objects.values() if one.owner is code and not one.promised]

    def leaks(self) -> list[HeapObject]:
        """What modules that are gone have allocated and nobody has freed to this moment."""
        living = set(map(id, self.state.codes))
        return [one for one in self.state.objects.values() if id(one.owner) not in living and not one.promised]

    def check_now(self) -> None:
        """Look at every redzone and at everything in quarantine; findings join ``faults`` without a line in the log."""
        for one in list(self.state.objects.values()):
            self.state.faults += [fault for fault in (self._overrun(one, None),) if fault]
        for kept in self.state.quarantine.values():
            for one in kept.values():
                self.state.faults += [fault for fault in (self._written(one),) if fault]

    def capture(self) -> HeapState:
        """A copy of everything, for ``restore``."""
        return self.state.copy()

    @property
    def calls_in_flight(self) -> int:
        """Calls of stubs that sleep: they are state that no file can hold."""
        return len(self._flights)

    def trap_addresses(self) -> set[int]:
        """Where its traps are, those of forgotten modules included."""
        stubs = [address for address, code in self._code.items() if code == STUB]
        return {address + offset for address in stubs for offset in (AT_ENTRY, AT_RETURN)}

    def placed(self) -> Placed:
        """With ``capture``, all that another process needs to go on with the same guest memory."""
        return Placed(
            dict(self._code), dict(self._guards), dict(self._guard_stubs), dict(self._natives), list(self._free),
            list(self.unwatched), self._stored,
        )  # fmt: skip

    def resume(self, state: HeapState, placed: Placed) -> None:
        """In another process, with the guest's memory in place: go on where ``placed`` and ``capture`` were asked."""
        self.state = state
        self._code, self._guards, self._guard_stubs = placed.code, placed.guards, placed.guard_stubs
        self._natives, self._free, self.unwatched = placed.natives, placed.free, placed.unwatched
        self._stored = placed.stored
        self._set_codes(state.codes)
        for (name, module), address in state.stubs.items():
            self._trap(address, name, self._wrapped[name], self.guest.symbol(name), module)
        for name, address in placed.guard_stubs.items():
            self._trap(address, name, self._wrapped[name], placed.natives[name], "")

    def restore(self, state: HeapState | None) -> None:
        """After a reset of the guest: back to a captured state, or to nothing."""
        if not self._stored and state is None and not self.state.codes:
            return
        before = self.state.stubs
        self.state = state.copy() if state is not None else HeapState()
        kept = set(self.state.stubs.values())
        # the next modules in line get them in the same order: then they are linked as before
        self._free += [address for address in reversed(before.values()) if address not in kept]
        self._stored = False
        self._flights.clear()
        self._set_codes(self.state.codes)
        if state is not None and state.guarded:
            self._store()

    def _set_codes(self, codes: tuple[ModuleCode, ...]) -> None:
        self.state.codes = codes
        self._holders = {code.name: code for code in codes}

    def place_of(self, trace: Trace | None) -> str:
        """The function that made the call, as in a line of a call trace."""
        if trace is None:
            return "unknown code"
        code = trace.module()
        if code is None:
            found = self.guest.symbols.at(trace.ip - 1)
            return f"{found.name}+{found.offset + 1:#x}" if found is not None else f"{trace.ip:#x}"
        symbol = code.symbol_at(trace.ip - 1)
        return f"{symbol[0]}+{symbol[1] + 1:#x} [{code.name}]" if symbol else f"{trace.ip:#x} [{code.name}]"

    # -- allocating -----------------------------------------------------------------------------------------------

    def real(self, *names: str) -> int:
        """The guest's own function."""
        known = self._reals.get(names)
        if known is None:
            known = self._reals[names] = self.guest.first_symbol(*names)
        return known

    def track(self, address: int, size: int, pool: Pool, slack: int = 0, cache: int = 0) -> int:
        """Remember an allocation of the present call's module, with up to ``slack`` bytes of redzone behind it."""
        owner = self.call.owner
        if address <= ZERO_SIZE_PTR or owner is None or address >> 63 == 0 or address >= 0xFFFF_FFFF_FFFF_F000:
            return address
        redzone = min(slack, REDZONE_MAX)
        if redzone:
            self._fill(address + size, redzone, REDZONE)
        known = self.state.objects.pop(address, None)
        if known is not None:
            self._count(address, -1)  # freed by a way that nobody watches
        self.state.objects[address] = HeapObject(address, size, pool, owner, self.trace(), redzone, cache)
        self._count(address, 1)
        return address

    def pool_of(self, address: int) -> Pool:
        """Memory in the direct map comes from the slab, other memory from vmalloc."""
        pages = self.guest.machine.pages
        return Pool.KMALLOC if pages.linear_base <= address < pages.linear_end else Pool.VMALLOC

    def _count(self, address: int, by: int) -> None:
        index = guarding.index_of(address)
        count = self.state.pages.get(index, 0) + by
        if count:
            self.state.pages[index] = count
        else:
            self.state.pages.pop(index, None)
        machine = self.guest.machine
        if not self._table_at:
            self._table_at = machine.pages.physical(self._table) or 0
        machine.memory.bytes[self._table_at + index] = min(count, 255)

    # -- freeing --------------------------------------------------------------------------------------------------

    def find(self, address: int) -> HeapObject | None:
        return self.state.objects.get(address)

    def release(self, one: HeapObject) -> Release:
        """An object is freed: check it, and keep it poisoned. The value is the call that gives memory back in exchange,
        of this or of another object; empty: none is due.
        """
        yield from self._check_redzone(one, self.trace())
        self.forget(one)
        facts = self.state.caches.get(one.cache)
        if one.pool is Pool.VMALLOC or one.size > POISONED_MAX or (facts is not None and facts.fixed):
            return self._giving_back(one)
        if one.freed is None:
            one.freed = self.trace()
        if facts is not None and facts.constructed:
            one.kept = self.guest.read(one.address, one.size)
        self._fill(one.address, one.size + one.redzone, POISON)
        kept = self.state.quarantine[one.pool]
        kept[one.address] = one
        self.state.held += one.size
        last: tuple[int, ...] = ()
        while kept and (len(kept) > QUARANTINE_OBJECTS or self.state.held > QUARANTINE_BYTES):
            if last:
                yield last
            last = yield from self._let_go(one.pool, next(iter(kept.values())))
        return last

    def forget(self, one: HeapObject) -> None:
        """Not tracked any more."""
        del self.state.objects[one.address]
        self._count(one.address, -1)

    def _let_go(self, pool: Pool, one: HeapObject) -> Release:
        """Out of quarantine: nobody may have written to it. The value is the call that gives it back to the guest."""
        del self.state.quarantine[pool][one.address]
        self.state.held -= one.size
        written = self._written(one)
        if written is not None:
            yield from self._report(written)
        if one.kept is not None:
            self.guest.write(one.address, one.kept)
        return self._giving_back(one)

    def _giving_back(self, one: HeapObject) -> tuple[int, ...]:
        """The guest's own function, past the filter: the object is not tracked any more."""
        name = _GIVING_BACK[one.pool]
        function = self._natives.get(name) or self.real(name)
        return (function, one.cache, one.address) if one.pool is Pool.CACHE else (function, one.address)

    def empty_cache(self, cache: int) -> Generator[tuple[int, ...], int, None]:
        """Give back what is in quarantine of a cache, which is about to be destroyed."""
        for one in [one for one in self.state.quarantine[Pool.CACHE].values() if one.cache == cache]:
            yield (yield from self._let_go(Pool.CACHE, one))

    def refuse(self, address: int) -> Calls:
        """Something that is not tracked is freed. True: it is an error of a module, reported, and must not be freed."""
        if address <= ZERO_SIZE_PTR:
            return False
        for kept in self.state.quarantine.values():
            one = kept.get(address)
            if one is not None:
                yield from self._bad_free(Fault.DOUBLE_FREE, one, 0)
                return True
        if self.call.owner is None:
            return False
        inside = self._around(address)
        if inside is not None:
            yield from self._bad_free(Fault.INVALID_FREE, inside, address - inside.address)
            return True
        if self.pool_of(address) is not Pool.KMALLOC and self._is_module_data(address):
            # the guest's own function says the rest, as it does on hardware
            trace = self.trace()
            text = (
                f"kobox: invalid free: {address:#x} is data of {self.call.owner.name}; freed by {self.place_of(trace)}"
            )
            fault = MemoryFault(
                Fault.INVALID_FREE, text, address, 0, self.call.owner.name, trace.time, None, None, trace
            )
            yield from self._report(fault)
        return False

    def _bad_free(self, fault: Fault, one: HeapObject, offset: int) -> Generator[tuple[int, ...], int, None]:
        trace = self.trace()
        what = f"{one.size} bytes at {one.address:#x}, allocated by {self.place_of(one.allocated)}"
        if one.freed is not None:
            what += f", freed by {self.place_of(one.freed)}"
        how = "freed again by" if not offset else f"freed at offset {offset} by"
        text = f"kobox: {fault.value.replace('-', ' ')}: {what}, {how} {self.place_of(trace)}"
        yield from self._report(
            MemoryFault(
                fault, text, one.address, one.size, one.owner.name, trace.time, one.allocated, one.freed, trace, offset
            )
        )

    def _around(self, address: int) -> HeapObject | None:
        """The tracked object that an address lies in, but not at its start."""
        if guarding.index_of(address) not in self.state.pages:
            return None
        return next(
            (one for one in self.state.objects.values() if one.address < address < one.address + one.size), None
        )

    def _is_module_data(self, address: int) -> bool:
        owner = self.call.owner
        return owner is not None and any(
            owner.layout.regions[place.region].size and at <= address < at + section.size
            for place, section, at in zip(owner.layout.places, owner.view.sections, owner.addresses, strict=True)
            if place is not None
        )

    # -- checks ---------------------------------------------------------------------------------------------------

    def _check_redzone(self, one: HeapObject, found: Trace | None) -> Generator[tuple[int, ...], int, None]:
        fault = self._overrun(one, found)
        if fault is not None:
            yield from self._report(fault)

    def _overrun(self, one: HeapObject, found: Trace | None) -> MemoryFault | None:
        """Bytes behind an object that are not the pattern; they are put right, so that each is reported once."""
        if not one.redzone:
            return None
        bad = _span_of_change(self._content(one.address + one.size, one.redzone, REDZONE), REDZONE)
        if bad is None:
            return None
        self._fill(one.address + one.size, one.redzone, REDZONE)
        first, count, value = bad
        text = (
            f"kobox: overrun: {_bytes(count)} written at offset {one.size + first} of {one.size} bytes at "
            f"{one.address:#x} ({value:#04x}), allocated by {self.place_of(one.allocated)}"
        )
        if found is not None:
            text += f", found when freed by {self.place_of(found)}"
        return MemoryFault(
            Fault.OVERRUN, text, one.address, one.size, one.owner.name, self.guest.machine.clock.now,
            one.allocated, one.freed, found, one.size + first, count,
        )  # fmt: skip

    def _fill(self, address: int, size: int, pattern: int) -> None:
        start = address - self._linear
        if 0 <= start < self._ram:
            self._memory.bytes[start : start + size] = bytes([pattern]) * size
        else:
            self.guest.write(address, bytes([pattern]) * size)

    def _content(self, address: int, size: int, pattern: int) -> bytes:
        """Memory to check; pages that are gone (freed by a way that nobody watches) are as they should be."""
        start = address - self._linear
        if 0 <= start < self._ram:
            return bytes(self._memory.bytes[start : start + size])
        try:
            return self.guest.read(address, size)
        except GuestError:
            return bytes([pattern]) * size

    def _written(self, one: HeapObject) -> MemoryFault | None:
        bad = _span_of_change(self._content(one.address, one.size, POISON), POISON)
        if bad is None:
            return None
        first, count, value = bad
        self._fill(one.address, one.size, POISON)
        text = (
            f"kobox: write after free: {_bytes(count)} written at offset {first} of {one.size} bytes at "
            f"{one.address:#x} ({value:#04x}), allocated by {self.place_of(one.allocated)}, "
            f"freed by {self.place_of(one.freed)}"
        )
        return MemoryFault(
            Fault.WRITE_AFTER_FREE, text, one.address, one.size, one.owner.name, self.guest.machine.clock.now,
            one.allocated, one.freed, None, first, count,
        )  # fmt: skip

    def _report(self, fault: MemoryFault, quiet: bool = False) -> Generator[tuple[int, ...], int, None]:
        self.state.faults.append(fault)
        if not quiet:
            yield from self._say(fault.text)

    def _say(self, text: str) -> Generator[tuple[int, ...], int, None]:
        """One record of the kernel's log, at level 3."""
        form = b"\x013%s\n\0"
        self.guest.write(self._text, form + text.encode("utf-8", "replace")[:1000] + b"\0")
        yield (self.real("_printk", "printk"), self._text, self._text + len(form))

    # -- slab caches ----------------------------------------------------------------------------------------------

    def note_cache(self, cache: int, name: int, size: int, constructed: bool) -> int:
        """A module made a cache of ``size`` bytes an object (it was asked for with more)."""
        if cache and cache < 0xFFFF_FFFF_FFFF_F000 and self.call.owner is not None:
            flags = self.guest.view("kmem_cache", cache)["flags"]
            text = self.guest.read_cstr(name, 64).decode("latin-1") if name else ""
            before = self.state.caches.get(cache)
            size = max(size, before.size) if before is not None else size  # an alias of another cache
            self.state.caches[cache] = CacheFacts(text, size, constructed, bool(flags & self._reused_under_rcu()))
        return cache

    def _reused_under_rcu(self) -> int:
        """``SLAB_TYPESAFE_BY_RCU``: an enumeration names the bit since 6.9 (cc61eb851f2d); before it was this one."""
        if self.guest.image.btf.find("_slab_flag_bits") is not None:
            return 1 << self.guest.layouts.enum("_slab_flag_bits")["_SLAB_TYPESAFE_BY_RCU"]
        return 0x80000

    def cache_size(self, cache: int) -> tuple[int, int]:
        """(size, slack) of a cache's objects."""
        whole = self.guest.view("kmem_cache", cache)["object_size"]
        facts = self.state.caches.get(cache)
        return (facts.size, max(0, whole - facts.size)) if facts is not None else (whole, 0)


def bucket(size: int) -> int:
    """How many bytes ``kmalloc(size)`` really gives (mm/slab_common.c, with caches of 96 and 192 bytes)."""
    if size <= _BUCKETS[-1]:
        return next(whole for whole in _BUCKETS if size <= whole)
    pages = (size + _PAGE - 1) // _PAGE
    return _PAGE << (pages - 1).bit_length()


def room(size: int) -> int:
    """What to ask ``kmalloc`` for, so that there is a redzone and the alignment that was promised.

    A power of two is aligned to itself; other sizes to their largest power of two up to the minimum of a cache.
    """
    if not 0 < size <= ENLARGED_MAX or bucket(size) - size >= REDZONE_MIN:
        return size
    return max(2 * size, size + REDZONE_MIN) if size & size - 1 == 0 else size + REDZONE_MIN


def slack_of(size: int) -> int:
    """How many bytes behind ``size`` belong to the object when ``room(size)`` was asked for."""
    return bucket(room(size)) - size if size else 0


def _span_of_change(data: bytes, pattern: int) -> tuple[int, int, int] | None:
    """(first offset, length, first value) of what is not the pattern."""
    rest = data.lstrip(bytes([pattern]))
    if not rest:
        return None
    first = len(data) - len(rest)
    return first, len(rest.rstrip(bytes([pattern]))), rest[0]


def _bytes(count: int) -> str:
    return "1 byte" if count == 1 else f"{count} bytes"


__all__ = ["Call", "HeapCheck", "bucket", "room", "slack_of"]
