"""The bare kernel as its functions see it: memory, symbols, log, heap, clock, modules; ``k`` in the tables of ``api``.

One address space without page tables: kobox's own pages hold stubs and kernel data, the direct map is the heap, modules
and the one kernel stack are mapped page by page with their protections, and a window of user addresses takes buffers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from kobox.bare.calls import RETURN_NAME, Calls
from kobox.bare.clock import BareClock
from kobox.bare.data import BareData
from kobox.bare.devices import Devices
from kobox.bare.heap import BareHeap
from kobox.bare.log import BareLog
from kobox.errors import GuestError, NotModelled
from kobox.kernel.guest import Guest, Layouts
from kobox.kernel.heapcheck_records import Trace
from kobox.kernel.tasks import KernelDead
from kobox.machine import unicorn_abi as abi
from kobox.machine.machine import Machine
from kobox.machine.memory import PAGE_SIZE
from kobox.machine.unicorn_abi import REG

if TYPE_CHECKING:
    from kobox.bare.modules import ModuleList
    from kobox.kernel.heapcheck_records import ModuleCode

RAM_SIZE = 64 << 20
KERNEL_BASE = 0xFFFF_FFFF_8100_0000
MODULE_AREA = 0xFFFF_FFFF_C000_0000
_LINEAR = 0xFFFF_8880_0000_0000
_STACK_BASE = 0xFFFF_C900_0000_4000
STACK_SIZE = 16 << 10
_STUBS, _DATA = 1 << 20, 1 << 18
_HEAP_START, _PAGES_START = 1 << 20, 3 * RAM_SIZE // 4
WINDOW = (0x7F00_0000_0000, 1 << 20)
_CANARY = 0x6B6F_626F_7800_A500
_CANARY_AT = 0x28
_STUB_SIZE = 64

_PASSIVE = {"__fentry__": b"\xc3", "__x86_return_thunk": b"\xc3"}
"""Functions that only return. Tracing is off, and this CPU needs no mitigation."""
_REGISTERS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))


class BareGuest(Guest):
    """Memory and symbols as on an image; what a boot would have set up is set up by ``__init__``."""

    def __init__(self, comm: str = "insmod") -> None:
        self.data = BareData()
        self.machine = machine = Machine(RAM_SIZE, _STUBS + _DATA, KERNEL_BASE, WINDOW[1])
        self.image = self.data  # type: ignore[assignment]  # what of an image is asked for here: release, btf, config
        self.layouts = Layouts(self.data)  # type: ignore[arg-type]
        self._pages = machine.pages
        pages = machine.pages
        pages.linear_base, pages.linear_end = _LINEAR, _LINEAR + _PAGES_START
        pages.window = (WINDOW[0], sum(WINDOW), RAM_SIZE + _STUBS + _DATA)
        self._free_pages = list(range(RAM_SIZE - PAGE_SIZE, _PAGES_START - PAGE_SIZE, -PAGE_SIZE))[::-1]
        self._data_next, self._data_end = KERNEL_BASE + _STUBS, KERNEL_BASE + _STUBS + _DATA
        self.map(_STACK_BASE, STACK_SIZE, abi.PROT_RW)
        self.stack = range(_STACK_BASE, _STACK_BASE + STACK_SIZE)
        self.calls = Calls(self, machine, self.stack.stop - 256)
        self.symbols: _Symbols = _Symbols(self)  # type: ignore[assignment]  # as a mapping of names, made when asked
        self._known: dict[str, int] = {}
        self.log = BareLog(lambda: machine.clock.now)
        self.heap = BareHeap(self, _LINEAR + _HEAP_START, _LINEAR + _PAGES_START)
        self.clock = BareClock(self, int(self.data.config["CONFIG_HZ"]))
        self.devices = Devices(self)
        self.modules: ModuleList
        self.held: set[int] = set()
        self.tainted = 0
        self._debugs_locks = True
        self.uevents: list[list[str]] = []
        """What udev would hear, without sequence numbers."""
        self.dead = ""
        """Why the kernel has stopped, once it has."""
        self.comm = comm
        self.own_task = 0
        """The task that works for Python, once somebody looks at tasks."""
        self.codes: tuple[ModuleCode, ...] = ()
        self.percpu_area = self.reserve(PAGE_SIZE, PAGE_SIZE)
        self._power_on()

    def _power_on(self) -> None:
        cpu = self.machine.cpu
        cpu.write(REG["gs_base"], self.percpu_area)
        self.write_uint(self.percpu_area + _CANARY_AT, _CANARY)

    # -- memory ---------------------------------------------------------------------------------------------------

    def map(self, address: int, size: int, protection: int) -> None:
        """Fresh zeroed pages at a kernel address."""
        pages, memory = self._pages, self.machine.memory
        for page in range(address, address + size, PAGE_SIZE):
            if not self._free_pages:
                raise GuestError("the bare kernel has no more pages")
            paddr = self._free_pages.pop()
            memory.write(paddr, bytes(PAGE_SIZE))
            pages.own[page] = (paddr, protection)

    def protect(self, address: int, size: int, protection: int) -> None:
        for page in range(address, address + size, PAGE_SIZE):
            self._pages.own[page] = (self._pages.own[page][0], protection)
        self.machine.cpu.forget_pages()

    def unmap(self, address: int, size: int) -> None:
        """Give pages back, and forget what was translated of them."""
        for page in range(address, address + size, PAGE_SIZE):
            paddr, protection = self._pages.own.pop(page)
            if protection & abi.PROT_EXEC:
                self.machine.forget_page(paddr)
            self._free_pages.append(paddr)
        self.machine.cpu.forget_pages()

    def reserve(self, size: int, align: int = 16) -> int:
        """Kernel data for good, zeroed."""
        address = -(-self._data_next // align) * align
        self._data_next = address + size
        if self._data_next > self._data_end:
            raise NotModelled("the bare kernel's data area is full")
        return address

    # -- symbols --------------------------------------------------------------------------------------------------

    def known(self, name: str) -> int:
        """The address of a symbol that somebody has asked for, else 0."""
        return self.symbols.made.get(name, 0)

    def symbol_text(self, address: int) -> str:
        """``name+0xoffset/0xsize [module]``, or the plain address."""
        for code in self.codes:
            found = code.symbol_at(address)
            if found is not None:
                return f"{found[0]}+{found[1]:#x}/{found[2]:#x} [{code.name}]"
        kernel = self.symbols.at(address)
        return f"{kernel[0]}+{kernel[1]:#x}/{kernel[2]:#x}" if kernel is not None else f"0x{address:x}"

    def is_kernel_text(self, address: int) -> bool:
        return KERNEL_BASE + PAGE_SIZE <= address < KERNEL_BASE + _STUBS

    # -- the call that just trapped -------------------------------------------------------------------------------

    def caller(self) -> int:
        """The return address of the call that trapped; 0 when Python was not called from the guest."""
        return 0 if not self.calls.busy else self.read_uint(self.calls.last[6])

    def variadic(self, named: int) -> Any:
        return self.calls.variadic(named)

    def trace(self) -> Trace | None:
        """Where the caller of the trapped function stood, for unwinding when somebody wants to see it."""
        if not self.calls.busy:
            return None
        rsp = self.calls.last[6]
        stack = self.read(rsp + 8, self.stack.stop - rsp - 8) if rsp in self.stack else b""
        bp = self.machine.cpu.read(REG["rbp"])
        return Trace(self.read_uint(rsp), rsp + 8, bp, stack, self.machine.clock.now, self.codes)

    def frames(self, trace: Trace) -> list[dict[str, Any]]:
        """A trace, innermost first, as reports show it."""
        from kobox.bare.witness import frames_of

        return frames_of(self, trace)

    def panic(self, why: str) -> NoReturn:
        """The kernel has stopped for good."""
        self.dead = why
        self.log.write(0, f"Kernel panic - not syncing: {why}")
        self.log.write(0, "Kernel Offset: disabled")
        raise KernelDead(f"kernel panic: {why}", hint="reset() the kernel, or boot anew")

    def hold(self, lock: int) -> None:
        """Take a lock; whoever holds it already is the same task, which would wait for ever."""
        if lock in self.held:
            raise GuestError(f"{self.symbol_text(self.caller())} takes a lock that is held: nobody can release it")
        self.held.add(lock)

    # -- calls ----------------------------------------------------------------------------------------------------

    def call(self, function: str | int, *arguments: int) -> int:
        address = self.symbol(function) if isinstance(function, str) else function
        self.clock.start_call()
        try:
            return self.calls.run(address, *arguments)
        except GuestError:
            self.held.clear()
            raise

    def taint(self, bit: int, lockdep_off: bool = False) -> None:
        """``add_taint``."""
        if lockdep_off and self._debugs_locks:
            self._debugs_locks = False
            self.log.write(4, "Disabling lock debugging due to kernel taint")
        self.tainted |= 1 << bit

    def stop_debugging_locks(self) -> None:
        """As an oops does it, without a word."""
        self._debugs_locks = False

    def uevent(self, action: str, module: str) -> None:
        path = f"/module/{module.replace('/', '!')}"
        self.uevents.append([f"{action}@{path}", f"ACTION={action}", f"DEVPATH={path}", "SUBSYSTEM=module"])

    def settle(self) -> None:
        """Run the work that is queued."""
        self.calls.drive(self.clock.run_work())


class _Symbols:
    """Symbols by name; each is made when somebody asks, so that a start does not pay for all of them."""

    def __init__(self, guest: BareGuest) -> None:
        self._guest = guest
        self.made: dict[str, int] = {}
        self._names: dict[int, str] = {}

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def get(self, name: str) -> int | None:
        address = self.made.get(name)
        if address is None:
            address = self._make(name)
            if address is not None:
                self.made[name] = address
                self._names[address] = name
        return address

    def at(self, address: int) -> tuple[str, int, int] | None:
        """(name, offset, size) of the stub or variable at an address."""
        if not self._guest.is_kernel_text(address):
            return None
        start = address - address % _STUB_SIZE
        first = self._guest.calls.returns_to - _STUB_SIZE
        if start in (first, first + _STUB_SIZE):
            return RETURN_NAME, address - first, 2 * _STUB_SIZE
        return (self._names[start], address - start, _STUB_SIZE) if start in self._names else None

    def _make(self, name: str) -> int | None:
        guest = self._guest
        area = guest.machine.area
        if name in _PASSIVE:
            return area.code(_PASSIVE[name])
        if name.startswith("__x86_indirect_thunk_"):
            number = _REGISTERS.index(name.removeprefix("__x86_indirect_thunk_"))
            return area.code((b"\x41" if number > 7 else b"") + bytes((0xFF, 0xE0 | number & 7)))
        if name.startswith("param_ops_") or name == "param_array_ops":
            return guest.reserve(32)
        from kobox.bare.api import find
        from kobox.bare.variables import VARIABLES

        if name in VARIABLES:
            return VARIABLES[name](guest)
        declared = find(name)
        if declared is not None:
            return guest.calls.stub(name, declared)
        from kobox.bare.api.uaccess import SPECIAL

        special: Callable[[BareGuest], None] | None = SPECIAL.get(name)
        return guest.calls.special(name, special) if special is not None else None
