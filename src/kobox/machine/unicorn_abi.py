"""The Unicorn library behind one thin class: map RAM, run, registers, hooks, translated code.

Only this file and ``unicorn_library`` know that Unicorn exists.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
from collections.abc import Callable
from typing import Any

from kobox.errors import NotModelled
from kobox.machine.unicorn_library import CONST, LIBRARY, READ_CALLBACK, WRITE_CALLBACK, X86, TlbEntry, version

WANTED_VERSION = (2, 1)
"""Internals used here (hook signatures, control codes) are those of this series; pyproject pins the exact release."""

REG = {name.removeprefix("UC_X86_REG_").lower(): value for name, value in X86.items() if name.startswith("UC_X86_REG_")}
"""Register numbers by lower-case name: ``REG["rip"]``."""

GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
_ENCODING = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *GENERAL[8:], "rip")
"""General registers in the order of their numbers in instructions, then rip: how Unicorn keeps them in memory."""

OK = CONST["UC_ERR_OK"]
INSN_INVALID = CONST["UC_ERR_INSN_INVALID"]

READ, WRITE, FETCH = CONST["UC_MEM_READ"], CONST["UC_MEM_WRITE"], CONST["UC_MEM_FETCH"]
"""What the CPU wants of a page."""

PROT_READ, PROT_WRITE, PROT_EXEC = CONST["UC_PROT_READ"], CONST["UC_PROT_WRITE"], CONST["UC_PROT_EXEC"]
PROT_RW, PROT_RX, PROT_RWX = PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC, CONST["UC_PROT_ALL"]

_TLB_FILL = ctypes.CFUNCTYPE(
    ctypes.c_bool, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p
)
_INTR = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)
_CPUID = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_IN = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_void_p)
_OUT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p)


class Segment(ctypes.Structure):
    """A descriptor-table or segment register as Unicorn passes it (``uc_x86_mmr``)."""

    _fields_ = (
        ("selector", ctypes.c_uint16),
        ("base", ctypes.c_uint64),
        ("limit", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


class _Msr(ctypes.Structure):
    _fields_ = (("rid", ctypes.c_uint32), ("value", ctypes.c_uint64))


class Unicorn:
    """One emulated x86-64 CPU. Callbacks get plain integers; an exception in one ends the run and is raised there."""

    def __init__(self) -> None:
        have = version()
        if have != WANTED_VERSION:
            raise NotModelled(
                f"Unicorn {have[0]}.{have[1]} is installed, kobox works with {WANTED_VERSION[0]}.{WANTED_VERSION[1]}",
                hint="pip install 'unicorn==2.1.4'",
            )
        self._lib = LIBRARY
        handle = ctypes.c_void_p()
        self._check(self._lib.uc_open(CONST["UC_ARCH_X86"], CONST["UC_MODE_64"], ctypes.byref(handle)), "open")
        self._handle = handle
        self._keep: list[object] = []
        self.stops = 0
        """How often the end of a run was asked for."""
        self._raised: BaseException | None = None
        self._value = ctypes.c_uint64()
        self._value_ref = ctypes.byref(self._value)
        self.precise_stop = self._check_for_stops_only_between_blocks()
        self._file = self._find_register_file()
        self._place = {REG[name]: index for index, name in enumerate(_ENCODING)} if self._file else {}
        self._ctl = self._lib.uc_ctl

    # -- set-up -------------------------------------------------------------------------------------------------

    def use_page_map(self, fill: Callable[[int, int], tuple[int, int] | None]) -> None:
        """Every virtual page the CPU touches is asked of ``fill(vaddr, access) -> (paddr, protection) | None``."""
        request = _ctl_code(CONST["UC_CTL_TLB_TYPE"], 1, _CTL_WRITE)
        self._check(self._ctl(self._handle, request, ctypes.c_int(CONST["UC_TLB_VIRTUAL"])), "tlb type")

        slots: dict[int, Any] = {}  # answers lie on the C stack, in a handful of places

        def callback(_uc: int, vaddr: int, access: int, entry: int, _data: int) -> bool:
            try:
                found = fill(vaddr, access)
            except BaseException as error:  # noqa: BLE001  # C code lies between; raised again in run()
                self._remember(error)
                return False
            if found is None:
                return False
            slot = slots.get(entry)
            if slot is None:
                slot = slots[entry] = TlbEntry.from_address(entry)
            slot.paddr, slot.perms = found
            return True

        self._hook(CONST["UC_HOOK_TLB_FILL"], _TLB_FILL(callback))

    def on_interrupt(self, handler: Callable[[int], None]) -> None:
        """``handler(vector)`` for every exception or software interrupt that the guest raises."""
        self._hook(CONST["UC_HOOK_INTR"], _INTR(self._guarded(lambda _uc, vector, _data: handler(vector))))

    def on_cpuid(self, handler: Callable[[], None]) -> None:
        """``handler()`` reads EAX and ECX and sets the four result registers."""

        def callback(_uc: int, _data: int) -> int:
            try:
                handler()
            except BaseException as error:  # noqa: BLE001  # C code lies between; raised again in run()
                self._remember(error)
            return 1

        self._hook_instruction(X86["UC_X86_INS_CPUID"], _CPUID(callback))

    def on_ports(self, read: Callable[[int, int], int], write: Callable[[int, int, int], None]) -> None:
        """``read(port, size) -> value`` and ``write(port, size, value)`` for IN and OUT."""

        def callback_in(_uc: int, port: int, size: int, _data: int) -> int:
            try:
                return read(port, size)
            except BaseException as error:  # noqa: BLE001  # C code lies between; raised again in run()
                self._remember(error)
                return 0

        self._hook_instruction(X86["UC_X86_INS_IN"], _IN(callback_in))
        self._hook_instruction(
            X86["UC_X86_INS_OUT"],
            _OUT(self._guarded(lambda _uc, port, size, value, _data: write(port, size, value))),
        )

    def on_block(self, function: int, argument: int, first: int, last: int, keep: object) -> None:
        """Have translated code call host code at the start of every block in [first, last]: ``function`` is the address
        of ``void (*)(uc_engine *, uint64_t address, uint32_t size, void *argument)``. Code that was translated before
        does not call it. ``keep`` owns what the two point to; it lives as long as this CPU."""
        self._keep.append(keep)
        hook = ctypes.c_size_t()
        self._check(
            self._lib.uc_hook_add(
                self._handle, ctypes.byref(hook), CONST["UC_HOOK_BLOCK"], ctypes.c_void_p(function),
                ctypes.c_void_p(argument), ctypes.c_uint64(first), ctypes.c_uint64(last),
            ),
            "block hook",
        )  # fmt: skip

    def map_memory(self, paddr: int, size: int, host_address: int) -> None:
        """Give the CPU ``size`` bytes of this process's memory as RAM at physical ``paddr``."""
        self._check(self._lib.uc_mem_map_ptr(self._handle, paddr, size, PROT_RWX, host_address), "map")

    def map_device(
        self, paddr: int, size: int, read: Callable[[int, int], int], write: Callable[[int, int, int], None]
    ) -> None:
        """Memory-mapped registers: ``read(offset, size)``, ``write(offset, size, value)``."""

        def callback_read(_uc: int, offset: int, width: int, _data: int) -> int:
            try:
                return read(offset, width)
            except BaseException as error:  # noqa: BLE001  # C code lies between; raised again in run()
                self._remember(error)
                return 0

        reader = READ_CALLBACK(callback_read)
        writer = WRITE_CALLBACK(self._guarded(lambda _uc, off, width, value, _data: write(off, width, value)))
        self._keep += [reader, writer]
        self._check(
            self._lib.uc_mmio_map(
                self._handle, paddr, size, ctypes.cast(reader, ctypes.c_void_p), None,
                ctypes.cast(writer, ctypes.c_void_p), None,
            ),
            "map device",
        )  # fmt: skip

    def hook_blocks(self, function: int, data: int, start: int, end: int) -> int:
        """Call the host function at ``function`` before each block of code in [start, end); returns the hook.

        It gets the library's handle, the block's address, its size in bytes (32 bits) and ``data``. Code that is
        translated already does not call it.
        """
        hook = ctypes.c_size_t()
        self._check(
            self._lib.uc_hook_add(
                self._handle, ctypes.byref(hook), CONST["UC_HOOK_BLOCK"], ctypes.c_void_p(function),
                ctypes.c_void_p(data), ctypes.c_uint64(start), ctypes.c_uint64(end - 1),
            ),
            "block hook",
        )  # fmt: skip
        return hook.value

    def unhook(self, hook: int) -> None:
        """Take a hook away."""
        self._check(self._lib.uc_hook_del(self._handle, ctypes.c_size_t(hook)), "unhook")

    # -- running ------------------------------------------------------------------------------------------------

    def run(self, rip: int) -> int:
        """Run from ``rip`` until ``hlt``, an error or ``stop()``; returns the Unicorn error number (0: none)."""
        status: int = self._lib.uc_emu_start(self._handle, rip, 0, 0, 0)
        if self._raised is not None:
            error, self._raised = self._raised, None
            raise error
        return status

    def stop(self) -> None:
        """End the current run soon; may be called from another thread or a hook. May end the next run instead."""
        self.stops += 1
        self._lib.uc_emu_stop(self._handle)

    def read(self, register: int) -> int:
        """A register's value; not to be called from within a hook for rip, which is exact between runs only."""
        place = self._place.get(register)
        if place is not None:
            return self._file[place]
        self._value.value = 0  # narrow registers fill only their own bytes
        self._lib.uc_reg_read(self._handle, register, self._value_ref)
        return self._value.value

    def write(self, register: int, value: int) -> None:
        place = self._place.get(register)
        if place is not None:
            self._file[place] = value & _ALL_ONES
            return
        self._write_slow(register, value)

    def _write_slow(self, register: int, value: int) -> None:
        """Through the library."""
        self._value.value = value
        self._lib.uc_reg_write(self._handle, register, self._value_ref)

    def read_bytes(self, register: int, size: int) -> bytes:
        """A wide register (``xmm0``: 16 bytes)."""
        buffer = ctypes.create_string_buffer(size)
        self._lib.uc_reg_read(self._handle, register, buffer)
        return buffer.raw

    def write_bytes(self, register: int, value: bytes) -> None:
        self._lib.uc_reg_write(self._handle, register, ctypes.create_string_buffer(value, len(value)))

    def read_segment(self, register: int) -> Segment:
        segment = Segment()
        self._lib.uc_reg_read(self._handle, register, ctypes.byref(segment))
        return segment

    def write_segment(self, register: int, segment: Segment) -> None:
        self._check(self._lib.uc_reg_write(self._handle, register, ctypes.byref(segment)), "segment register")

    def read_msr(self, number: int) -> int:
        msr = _Msr(number, 0)
        self._lib.uc_reg_read(self._handle, X86["UC_X86_REG_MSR"], ctypes.byref(msr))
        return int(msr.value)

    def write_msr(self, number: int, value: int) -> None:
        msr = _Msr(number, value)
        self._lib.uc_reg_write(self._handle, X86["UC_X86_REG_MSR"], ctypes.byref(msr))

    def save_context(self) -> object:
        """All registers, restorable on this CPU only."""
        context = ctypes.c_void_p()
        self._check(self._lib.uc_context_alloc(self._handle, ctypes.byref(context)), "context")
        self._check(self._lib.uc_context_save(self._handle, context), "context")
        return context

    def restore_context(self, context: object) -> None:
        self._check(self._lib.uc_context_restore(self._handle, context), "context")

    def forget_code(self, start: int, end: int) -> None:
        """Drop translated code of the virtual range [start, end)."""
        request = _ctl_code(CONST["UC_CTL_TB_REMOVE_CACHE"], 2, _CTL_WRITE)
        self._ctl(self._handle, request, ctypes.c_uint64(start), ctypes.c_uint64(end))

    def forget_all_code(self) -> None:
        self._ctl(self._handle, _ctl_code(CONST["UC_CTL_TB_FLUSH"], 0, _CTL_WRITE))

    def forget_pages(self) -> None:
        """Drop all cached translations of addresses: the page map will be asked again."""
        self._ctl(self._handle, _ctl_code(CONST["UC_CTL_TLB_FLUSH"], 0, _CTL_WRITE))

    def close(self) -> None:
        if self._handle:
            self._place, self._file = {}, memoryview(b"")
            self._lib.uc_close(self._handle)
            self._handle = ctypes.c_void_p()
            self._keep.clear()

    # -- inside -------------------------------------------------------------------------------------------------

    def _check_for_stops_only_between_blocks(self) -> bool:
        """Translate code without a look at the stop flag after every memory access.

        Unicorn ends a stopped run after any load or store and then restarts the instruction, so that a
        read-modify-write instruction is executed twice (a spinlock then waits for itself). Its own flag for ARM's IT
        blocks leaves these checks out; stops are then seen between translated blocks only, where they are exact, and
        memory accesses cost half. Where the flag lies is read from the one exported function that tests it.
        """
        function = getattr(self._lib, "check_exit_request_x86_64", None)
        if function is None:
            return False
        code = ctypes.string_at(ctypes.cast(function, ctypes.c_void_p).value or 0, 32)
        test = re.search(rb"\x80[\xb8-\xbf](.{4})\x00", code, re.DOTALL)  # cmp byte [reg + disp32], 0
        if test is None:
            return False
        flag = (self._handle.value or 0) + int.from_bytes(test[1], "little")
        if ctypes.c_ubyte.from_address(flag).value != 0:
            return False
        ctypes.c_ubyte.from_address(flag).value = 1
        return True

    def _find_register_file(self) -> memoryview:
        """The CPU's general registers and rip as they lie in Unicorn's memory; empty when they are not found.

        A call of the library for one register costs two microseconds, an element of this view a twentieth of that.
        Where the registers lie is found by their values: each is given one of its own, and what the library's object
        points to is searched for all of them in a row. Read through ``/proc/self/mem``, so that a stray pointer is an
        error and no crash.
        """
        marks = {name: 0x6B6F_626F_7800_0001 + 0x1_0001 * index for index, name in enumerate(_ENCODING)}
        for name, mark in marks.items():
            self._write_slow(REG[name], mark)
        wanted = struct.pack(f"<{len(marks)}Q", *marks.values())
        found = _find_behind_pointers(self._handle.value or 0, wanted, _address_of(self._lib.uc_open))
        file = memoryview(b"")
        if found:
            file = memoryview((ctypes.c_uint64 * len(marks)).from_address(found)).cast("B").cast("Q")
        for name in marks:
            self._write_slow(REG[name], 0)
        return file if not any(file) else memoryview(b"")

    def _guarded(self, function: Callable[..., None]) -> Callable[..., None]:
        def callback(*args: int) -> None:
            try:
                function(*args)
            except BaseException as error:  # noqa: BLE001  # C code lies between; raised again in run()
                self._remember(error)

        return callback

    def _remember(self, error: BaseException) -> None:
        if self._raised is None:
            self._raised = error
        self.stop()

    def _hook(self, kind: int, callback: Any) -> None:
        hook = ctypes.c_size_t()
        self._keep.append(callback)
        self._check(
            self._lib.uc_hook_add(
                self._handle, ctypes.byref(hook), kind, ctypes.cast(callback, ctypes.c_void_p), None,
                ctypes.c_uint64(1), ctypes.c_uint64(0),
            ),
            "hook",
        )  # fmt: skip

    def _hook_instruction(self, instruction: int, callback: Any) -> None:
        hook = ctypes.c_size_t()
        self._keep.append(callback)
        self._check(
            self._lib.uc_hook_add(
                self._handle, ctypes.byref(hook), ctypes.c_int(CONST["UC_HOOK_INSN"]),
                ctypes.cast(callback, ctypes.c_void_p), None, ctypes.c_uint64(1), ctypes.c_uint64(0),
                ctypes.c_int(instruction),
            ),
            "instruction hook",
        )  # fmt: skip

    def _check(self, status: int, what: str) -> None:
        if status != OK:
            raise NotModelled(f"Unicorn refused ({what}): {self._lib.uc_strerror(status).decode()}")


_ALL_ONES = (1 << 64) - 1
_OBJECT_SIZE, _BEHIND_POINTER = 8192, 65536
_LIBRARY_SPAN = 64 << 20
"""How much of Unicorn's object and of what it points to is searched, and how far its code and tables reach at most."""


def _find_behind_pointers(start: int, wanted: bytes, library: int) -> int:
    """Address of ``wanted`` in memory that one of the pointers behind ``start`` leads to, or 0."""
    try:
        memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        owner = os.pread(memory, _OBJECT_SIZE, start)
        pointers = struct.unpack(f"<{len(owner) // 8}Q", owner[: len(owner) // 8 * 8])
        for pointer in dict.fromkeys(pointers):
            if pointer % 8 or not 1 << 16 < pointer < 1 << 47 or abs(pointer - library) < _LIBRARY_SPAN:
                continue
            try:
                offset = os.pread(memory, _BEHIND_POINTER, pointer).find(wanted)
            except OSError:
                continue  # not a pointer after all
            if offset >= 0:
                address: int = pointer + offset
                return address
    except OSError:
        return 0
    finally:
        os.close(memory)
    return 0


def _address_of(function: Any) -> int:
    address: int | None = ctypes.cast(function, ctypes.c_void_p).value
    return address or 0


_CTL_WRITE = 1


def _ctl_code(control: int, arguments: int, direction: int) -> int:
    """How ``uc_ctl`` packs a request (unicorn.h: UC_CTL)."""
    return control | (arguments << 26) | (direction << 30)
