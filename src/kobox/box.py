"""The front door: ``kobox.boot()`` gives a kernel; modules are loaded into it, files read, guest code called.

Faces (command line, pytest plugin) use this and nothing below it. Records go in and out; nothing here prints.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from errno import EPERM
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

from kobox.errors import Errno, UsageError
from kobox.kernel.face import KernelFace, parameter_text
from kobox.kernel.log import LogRecord
from kobox.kernel.modules import Module, ModuleRecord
from kobox.kernel.records import Autoload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import kobox.debug.tracing
    from kobox.abi.layout import StructLayout
    from kobox.bare.kernel import BareKernel
    from kobox.bringup.snapshot import Pristine
    from kobox.bringup.start import Booted, BootOptions
    from kobox.depot.resolve import Resolver
    from kobox.devices.backing import Backing
    from kobox.devices.disks import LiveDisk
    from kobox.devices.plug import Plugged, Plugger
    from kobox.devices.usb_device import UsbDevice
    from kobox.efi.chain import Chain
    from kobox.efi.mokmanager import Password
    from kobox.image import Image
    from kobox.kernel.coverage import CodeCoverage, Placed
    from kobox.kernel.device_mapper import DeviceMapper
    from kobox.kernel.disks import Disk
    from kobox.kernel.files import Files
    from kobox.kernel.guest import Guest
    from kobox.kernel.heapcheck import HeapCheck
    from kobox.kernel.heapcheck_gate import HeapMark
    from kobox.kernel.helpers import HelperCall
    from kobox.kernel.keyrings import Ring
    from kobox.kernel.kunit import KUnit
    from kobox.kernel.modprobe import Modprobe
    from kobox.kernel.subsystem import Operation
    from kobox.kernel.syscalls import Syscalls
    from kobox.kernel.udev import Udev
    from kobox.machine.pci_function import PciFunction
    from kobox.net.crypto import Crypto
    from kobox.net.links import Net

LOADERS = ("kobox", "kernel")
BARE = "bare"
DEFAULT_CPU = "qemu64"


@overload
def boot(  # type: ignore[overload-overlap]  # a text that is not known to be "bare" means an image, mostly
    image: Literal["bare"], *, loader: str = ..., comm: str = ...
) -> BareKernel: ...


@overload
def boot(
    image: str | os.PathLike[str] | None = None,
    *,
    append: str = ...,
    cpu: str = ...,
    memory: int | None = ...,
    seed: int | None = ...,
    loader: str = ...,
    comm: str = ...,
    check_memory: bool = ...,
    root: str | os.PathLike[str] | None = ...,
    autoload: bool = ...,
    variables: str | os.PathLike[str] | None = ...,
    mok_password: Password | None = ...,
    progress: Callable[[str], None] | None = ...,
) -> Kernel: ...


def boot(
    image: str | os.PathLike[str] | None = None,
    *,
    append: str = "",
    cpu: str = DEFAULT_CPU,
    memory: int | None = None,
    seed: int | None = None,
    loader: str = "kobox",
    comm: str = "insmod",
    check_memory: bool = True,
    root: str | os.PathLike[str] | None = None,
    autoload: bool = True,
    variables: str | os.PathLike[str] | None = None,
    mok_password: Password | None = None,
    progress: Callable[[str], None] | None = None,
) -> Kernel | BareKernel:
    """A running kernel.

    ``image``: a release that was added, a path to a root, a ``vmlinuz`` or a ``.deb``'s unpacked tree; ``bare`` is the
    small kernel that needs no image; None takes the newest added image, or bare where there is none. ``append`` is the
    kernel command line, ``memory`` its RAM in bytes; with a ``seed`` everything that kobox could choose at random or by
    the host's clock is drawn from it, so that the same calls give the same log. ``loader``: who loads modules: kobox,
    or the image's own ``load_module`` as a second opinion. ``comm`` names the tasks that work for Python.
    ``check_memory``: what modules loaded by kobox allocate and free is checked (see docs/memory.md). ``root`` is the
    system whose modules and modprobe.d answer the kernel's requests for modules, and ``Kernel.modprobe``; without it
    the image's own modules do. Not ``autoload``: such requests find no modprobe. ``variables`` is the
    directory of a machine with UEFI (see docs/secure-boot.md): its firmware checks the kernel, which reads its keys and
    keeps there what it sets; ``mok_password`` is asked for what waits in MokManager, None lets it pass.
    """
    if loader not in LOADERS:
        raise UsageError(f"no loader {loader!r}", hint=f"one of {', '.join(LOADERS)}")
    wanted = os.fspath(image) if image is not None else _default_image()
    if wanted == BARE:
        if root is not None:
            raise UsageError("the bare kernel asks for no modules", hint="a root is for an image")
        if variables is not None:
            raise UsageError("the bare kernel has no firmware", hint="variables are for an image")
        return _boot_bare(loader, append, comm, cpu)
    from kobox.bringup.snapshot import boot_cached
    from kobox.bringup.start import RAM_SIZE, BootOptions
    from kobox.image import Cache, open_image

    tell = progress or (lambda text: None)
    opened = open_image(wanted, progress=tell)
    chain = listed = None
    if variables is not None:
        from kobox.efi.chain import power_on
        from kobox.efi.variables import rows
        from kobox.image.store import kernel_file

        file = kernel_file(wanted)
        chain = power_on(variables, file.read_bytes(), file.name, mok_password)
        listed = list(rows(chain.variables))
    options = BootOptions(append, cpu, memory or RAM_SIZE, seed, listed)
    if root is not None:
        from kobox.kernel.module_source import check_root

        root = check_root(os.fspath(root), opened.release)
    booted = boot_cached(opened, options, Cache(), tell)
    if booted.firmware is not None and variables is not None:
        booted.firmware.keep_in(os.fspath(variables))
    kernel = Kernel(opened, booted, loader, comm, check_memory, options, root=root, autoload=autoload, progress=tell)
    kernel.chain = chain
    return kernel


def resume(folder: Path, image: str | os.PathLike[str], progress: Callable[[str], None] | None = None) -> Kernel:
    """The kernel that ``Kernel.save`` left in ``folder``; once it is there, it needs the folder no more.

    ``image`` is the one that it was booted from; whether it is, and whether this is the kobox that saved it, is for the
    caller to check (``saved_key``).
    """
    from kobox.bringup import living
    from kobox.image import open_image

    life = living.read(folder)
    opened = open_image(os.fspath(image), progress=progress or (lambda text: None))
    booted = living.restore(opened, life, folder)
    kernel = Kernel(opened, booted, life.facts["loader"], life.facts["comm"], options=life.options)
    living.resume(booted, life, kernel.modules_room.loader, kernel._heap, folder)
    kernel._marks = kernel._marks._replace(log=life.facts["log_start"])
    return kernel


def saved_key(folder: Path, image: str | os.PathLike[str]) -> str:
    """The key that a kernel saved in ``folder`` would have here and now."""
    from kobox.bringup import living
    from kobox.image import open_image

    return living.key_of(open_image(os.fspath(image)), living.read(folder).options)


def _default_image() -> str:
    from kobox.image import list_images

    images = list_images()
    return images[-1].release if images else BARE


def _boot_bare(loader: str, append: str, comm: str, cpu: str) -> BareKernel:
    from kobox.bare.kernel import BareKernel

    if loader != "kobox":
        raise UsageError("the bare kernel has no loader of its own", hint="--loader kobox")
    if append:
        raise UsageError("the bare kernel has no command line", hint="kobox kernel add --debian")
    if cpu != DEFAULT_CPU:
        raise UsageError(f"the bare kernel has no CPU model {cpu!r}", hint=f"it has {DEFAULT_CPU} only")
    return BareKernel(comm)


class _Marks(NamedTuple):
    """How far everything that Python keeps beside the guest had come at the state that ``reset`` goes back to."""

    log: int
    heap: HeapMark | None = None
    said_once: frozenset[str] = frozenset()
    autoloads: int = 0
    coverage: tuple[Placed, ...] = ()


class _Outer(NamedTuple):
    """A state that ``pop`` makes again the one to go back to. ``code``: physical pages whose code came after it."""

    pristine: Pristine
    code: frozenset[int]
    marks: _Marks


class Kernel(KernelFace):
    """A kernel at rest. It runs only inside the calls below; virtual time passes only then."""

    def __init__(
        self,
        image: Image,
        booted: Booted,
        loader: str,
        comm: str,
        check_memory: bool = True,
        options: BootOptions | None = None,
        *,
        root: str | None = None,
        autoload: bool = True,
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        from kobox.kernel.files import Files
        from kobox.kernel.heapcheck_gate import HeapGate
        from kobox.kernel.kunit_gate import KunitGate
        from kobox.kernel.second_opinion import KernelLoader
        from kobox.kernel.subsystem import Subsystem
        from kobox.kernel.syscalls import Syscalls

        self.image = image
        self.booted = booted
        self.guest: Guest = booted.guest
        self._root = root
        self._tell = progress
        self.guest.tasks.comm = comm
        self.syscalls: Syscalls = Syscalls(self.guest)
        self.files: Files = Files(self.syscalls)
        self.loader = loader
        self.modules_room = Subsystem(self.guest)
        self.modules_room.loader.comm = comm
        self._heap = HeapGate(self._make_heap, check_memory)
        self.modules_room.loader.heap = self._heap
        self._kunit = self.modules_room.loader.kunit = KunitGate(self.guest, self._make_kunit)
        self.second_opinion = KernelLoader(self.syscalls)
        self.last_load: Operation | None = None
        self.chain: Chain | None = None
        """Who checked whom before this kernel ran, on a machine with UEFI."""
        self._tracer: kobox.debug.tracing.Tracer | None = None
        self._pristine: Pristine | None = None
        self._outer: list[_Outer] = []
        self._moved_on = False
        self._marks = _Marks(booted.log.mark())
        self.guest.machine.on_look = booted.log.catch_up
        self._options = options
        self._own_traps = frozenset(self.guest.machine.area.traps)
        self._modprobe: Modprobe | None = None
        self._udev: Udev | None = None
        if autoload and loader == "kobox":
            self.guest.helpers.serve("modprobe", self._answer_modprobe)
        if self.guest.tasks.state.listener:
            _ = self.udev  # it ran when this state was kept, and goes on

    # -- life -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End it. Nothing of it remains."""
        self.booted.guest.machine.close()

    def checkpoint(self) -> None:
        """Make the present state the one that ``reset`` goes back to.

        ``UsageError`` while a module that the kernel asked for is still being loaded, or a trace is on.
        """
        self._refuse_while_tracing("checkpoint")
        from kobox.bringup.snapshot import Pristine, check_at_rest

        check_at_rest(self.booted)
        self.guest.machine.work_off()
        self.guest.machine.memory.freeze()
        self._outer.clear()
        self._moved_on = self._pristine is not None
        self._pristine = Pristine.capture(self.booted)
        self._note_marks()

    def push(self) -> None:
        """As ``checkpoint``, until ``pop``; costs only what was written since the state below. May be nested."""
        self._refuse_while_tracing("push")
        if self._pristine is None:
            raise UsageError("no state to stand on", hint="call mark_pristine() after boot()")
        machine = self.guest.machine
        machine.work_off()  # what devices have been asked for belongs to the state
        code = frozenset(machine.patched | machine.pages.executed | machine.pages.overwritten)
        self._outer.append(_Outer(self._pristine, code, self._marks))
        machine.memory.push()
        self._pristine = self._pristine.capture(self.booted)
        self._note_marks()

    def pop(self) -> None:
        """Back to the state that ``reset`` went to before the last ``push``."""
        if not self._outer:
            raise UsageError("no state was pushed", hint="every pop() needs its push()")
        outer = self._outer.pop()
        machine = self.guest.machine
        machine.memory.pop()
        machine.pages.executed |= outer.code
        self._pristine, self._marks = outer.pristine, outer.marks
        self.reset()

    def rewind(self) -> bool:
        """Back to the first state that was remembered, past all that was pushed; False where a ``checkpoint`` has taken
        its place, so that only a new boot leads there."""
        while self._outer:
            self.pop()
        if not self._moved_on:
            self.reset()
        return not self._moved_on

    def _note_marks(self) -> None:
        loader = self.modules_room.loader
        self._marks = _Marks(
            self.booted.log.mark(),
            self._heap.capture(),
            loader.said_once,
            self._modprobe.mark() if self._modprobe is not None else 0,
            loader.coverage.capture() if loader.coverage is not None else (),
        )

    def _refuse_while_tracing(self, what: str) -> None:
        """Half of a trace lies outside of the guest's state."""
        if self._tracer is not None and self._tracer.on:
            raise UsageError(f"no {what} while a trace is on", hint="end the trace first")

    def reset(self) -> None:
        """Back to the state after boot, or to the last ``checkpoint`` or ``push``."""
        if self._pristine is None:
            raise UsageError("no state to go back to", hint="call mark_pristine() after boot()")
        if self.modules_room.loader.coverage is not None:
            self.modules_room.loader.coverage.restore(self._marks.coverage)
        self._pristine.reset()
        self.modules_room.forget(self._marks.said_once)
        self._heap.restore(self._marks.heap)
        if self.booted.firmware is not None:
            self.booted.firmware.restore()
        if self._modprobe is not None:
            self._modprobe.forget(self._marks.autoloads)

    def mark_pristine(self) -> None:
        """Remember the present state for ``reset``: free right after boot, as dear as ``checkpoint`` later."""
        from kobox.bringup.snapshot import Pristine

        if self.guest.machine.traps_taken:
            self.checkpoint()
            return
        self._pristine = Pristine.capture(self.booted)

    def save(self, folder: Path) -> str:
        """Keep the whole state in an empty folder: memory, CPU, time, tasks, log, loaded modules, the memory checker.

        It is on disk when this returns; ``resume`` takes it up in any process. The value is the key that must be the
        same then (``saved_key``). ``UsageError`` while somebody watches the kernel by traps (tracing).
        """
        from kobox.bringup import living

        self._refuse_while_tracing("saving")
        if self._options is None:
            raise UsageError("this kernel was not made by boot()")
        kept = living.Kept(self.guest.tasks.comm, self.loader, self._marks.log, self._own_traps)
        living.save(self.booted, self._options, self.modules_room.loader, self._heap, kept, folder)
        return living.key_of(self.image, self._options)

    @property
    def release(self) -> str:
        """As ``uname -r`` says it."""
        return self.image.release

    @property
    def now(self) -> float:
        """Virtual seconds since power-on."""
        return self.guest.machine.clock.now / 1e9

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass; timers and work of the guest run."""
        self.guest.tasks.sleep(int(seconds * 1e9))

    def interrupt(self, wanted: bool = True) -> None:
        self.guest.tasks.interrupt(wanted)

    def set_timeout(self, seconds: float) -> None:
        """How much virtual time one call into the kernel may take."""
        self.guest.tasks.virtual_limit_ns = int(seconds * 1e9)

    @property
    def cpu_name(self) -> str:
        """The CPU model that the kernel sees."""
        return self.guest.pc.model.name

    @property
    def modules_folder(self) -> Path | None:
        """``lib/modules/RELEASE`` of its root, or of its image where that has one."""
        if self.root is None:
            return self.image.modules
        from kobox.depot.tree import ModuleTree

        return Path(ModuleTree(self.root, self.release).directory)

    def trace(  # type: ignore[override]  # names its options
        self,
        *functions: str,
        modules: Iterable[str] = (),
        graph: bool = True,
        calls: bool = True,
        callees: bool = True,
        events: Iterable[str] = (),
        probes: Iterable[str] = (),
        buffer_kb: int = 0,
    ) -> kobox.debug.tracing.Tracing:
        """Trace what runs inside a ``with`` block, by the kernel's own ftrace (see docs/trace.md).

        ``functions`` are globs, ``modules`` limits them to modules by name, also ones that are not loaded yet; neither:
        the functions of every module, and with ``callees`` the kernel's functions that those call. ``graph``: with
        durations and nesting, else with callers; ``calls=False``: no functions, only ``events`` (``system:name``) and
        ``probes`` (functions whose arguments and results are noted). ``buffer_kb``: the kernel's buffer, 0: enough for
        most.
        """
        from kobox.debug.tracing import FUNCTION, GRAPH, Options, Tracer, Tracing

        if self.loader != "kobox":
            raise UsageError("only loads by kobox's own loader can be traced", hint="--loader kobox")
        if self._tracer is None:
            self._tracer = Tracer(self.guest, self.files, self.syscalls)
            self.modules_room.loader.watcher = self._tracer
        tracer = "" if not calls else GRAPH if graph else FUNCTION
        names = tuple(name.replace("-", "_") for name in modules)
        options = Options(functions, names, callees, tracer, tuple(events), tuple(probes), buffer_kb)
        return Tracing(self._tracer, options)

    def stubs_hit(self) -> tuple[str, ...]:
        """Names of declared stubs that were called."""
        from kobox.abi.declare import Fidelity

        adopted = self.booted.dispatcher.adopted
        return tuple(name for name in self.booted.dispatcher.hits if adopted[name].fidelity is Fidelity.STUB)

    def adopted_hit(self) -> dict[str, str]:
        """Adopted functions that were called since the last reset, each with its declared fidelity."""
        adopted = self.booted.dispatcher.adopted
        hit = {name: adopted[name] for name in self.booted.dispatcher.hits} | self._kunit.hits()
        return {name: hit[name].fidelity.value for name in sorted(hit)}

    def leaks(self) -> tuple[dict[str, Any], ...]:
        """Allocations of unloaded modules that nobody has freed to this moment, with the traces that made them."""
        heap = self._heap.check
        if heap is None or not heap.state.objects:
            return ()
        from kobox.debug.heap_trace import HeapReporter

        return HeapReporter(self.guest).leaks(heap)

    def memory_reports(self) -> tuple[dict[str, Any], ...]:
        """What modules did to memory: overruns, writes after free, double and invalid frees, leaks found at unload."""
        heap = self._heap.check
        if heap is None:
            return ()
        heap.check_now()
        if not heap.state.faults:
            return ()
        from kobox.debug.heap_trace import HeapReporter

        return HeapReporter(self.guest).faults(heap)

    @property
    def heap(self) -> HeapCheck:
        """The memory checker, with what it tracks now."""
        return self._heap.opened()

    def _make_heap(self) -> HeapCheck:
        from kobox.kapi.slab import HEAP_TABLES
        from kobox.kernel.heapcheck import HeapCheck

        return HeapCheck(self.guest, HEAP_TABLES)

    def _make_kunit(self) -> KUnit:
        from kobox.debug.dwarf import ModuleDebug, read_structs
        from kobox.kapi.kunit import KUNIT_OWN, KUNIT_TABLES
        from kobox.kernel.kunit import KUnit
        from kobox.kernel.kunit_layouts import STRUCTS
        from kobox.ko import parse_module

        def read_layouts(data: bytes, name: str) -> dict[str, StructLayout]:
            return read_structs(ModuleDebug(parse_module(data, name).elf, name), STRUCTS)

        return KUnit(self.guest, KUNIT_TABLES, KUNIT_OWN, read_layouts)

    def record_coverage(self) -> CodeCoverage:
        """Note from now on which code of the modules runs that are loaded from now on; ``take`` gives it."""
        from kobox.kernel.coverage import CodeCoverage

        if self.loader != "kobox":
            raise UsageError("coverage is noted for modules that kobox's own loader loads", hint="--loader kobox")
        loader = self.modules_room.loader
        if loader.coverage is None:
            loader.coverage = CodeCoverage(self.guest.machine.cpu)
        return loader.coverage

    def explain_last_load(self) -> str:
        """Why the last load was refused, in the loader's words; empty where it was not."""
        return self.last_load.reason if self.last_load is not None else ""

    # -- modules --------------------------------------------------------------------------------------------------

    def start_load(self, data: bytes, parameters: str = "", flags: int = 0) -> Operation:
        """Begin a load; ``finish_load`` ends it."""
        if self.loader == "kobox":
            return self.modules_room.start_load(data, parameters.encode("utf-8", "surrogateescape"), flags)
        return self.second_opinion.start_load(data, parameters, flags)

    def finish_load(self, operation: Operation) -> int:
        """The result of a load as the system call returns it: 0 or a negative errno."""
        from kobox.kernel.tasks import TaskDied

        self.modules_room.finish(operation)
        self.last_load = operation
        if operation.died:
            raise TaskDied("the task that loaded the module was killed")
        return operation.result

    def delete_module(self, name: str, flags: int) -> int:
        """The system call's result: 0 or a negative errno."""
        from kobox.kernel.tasks import TaskDied

        if self.loader == "kobox":
            operation = self.modules_room.unload(name, flags)
        else:
            operation = self.second_opinion.unload(name, flags)
            self.modules_room.finish(operation)
        if operation.died:
            raise TaskDied("the task that unloaded the module was killed")
        return operation.result

    # -- modules by name ------------------------------------------------------------------------------------------

    def modprobe(self, name: str, /, **parameters: object) -> Module:
        """Load what a name or alias stands for, with everything it needs, as modprobe of the kernel's root does.

        Returns the handle of the (first) module that the name stands for. ``Errno(ENOENT)`` when nothing knows it;
        ``Errno(EPERM)`` when a blacklist stops it; ``NotModelled`` for an install command, which is not run.
        """
        from kobox.depot.kernel_target import KernelTarget
        from kobox.depot.targets import execute

        plan = self.modprobe_program.resolver.insert(name, parameter_text(parameters))
        execute(plan, KernelTarget(self))
        refused = next((probe.refused for probe in plan.probes if probe.refused is not None), None)
        if refused is not None:
            raise Errno(EPERM, f"{name}: {refused}")
        return self.module(plan.probes[0].module)

    @property
    def root(self) -> str | None:
        """The system (absolute) whose modules and configuration answer requests; None: the image's own modules do."""
        return self._root

    @root.setter
    def root(self, root: str | None) -> None:
        if root != self._root and self._modprobe is not None:
            self._modprobe.close()
        self._root = root

    def use_root(self, root: str | os.PathLike[str]) -> None:
        """Let a system answer the kernel's requests for modules, where it has modules of this kernel's release."""
        from kobox.depot.paths import absolute
        from kobox.depot.tree import releases

        if self.release in releases(root):
            self.root = absolute(os.fspath(root)).rstrip("/")

    @property
    def modprobe_program(self) -> Modprobe:
        """What answers requests for modules. Opened when first needed."""
        if self._modprobe is None:
            from kobox.kernel.modprobe import Modprobe

            self._modprobe = Modprobe(self.guest, self.modules_room.loader, self._open_source)
        return self._modprobe

    @property
    def udev(self) -> Udev:
        """A small udev for this kernel; ``start`` it."""
        if self._udev is None:
            from kobox.kernel.udev import Udev

            self._udev = Udev(self.guest, self.syscalls, lambda: self.modprobe_program)
        return self._udev

    def coldplug(self) -> None:
        """Load the modules of all devices that are there, as a system does when it boots, and of those that come."""
        self.udev.start()
        self.udev.coldplug(self.files)

    def _open_source(self) -> Resolver:
        from kobox.kernel.module_source import open_source

        command_line = self.guest.read_cstr(self.guest.read_uint(self.guest.symbol("saved_command_line")))
        return open_source(self.image, self.root, command_line.decode("utf-8", "surrogateescape"), self._tell)

    def _answer_modprobe(self, call: HelperCall) -> Generator[tuple[int, ...], int, int]:
        return self.modprobe_program.answer(call)

    @property
    def autoloaded(self) -> list[Autoload]:
        """What the kernel itself asked modprobe for, oldest first, and what became of it."""
        return self._modprobe.autoloads if self._modprobe is not None else []

    @overload
    def attach_disk(
        self, image: bytes | str | os.PathLike[str], *, read_only: bool = False, live: Literal[False] = ...
    ) -> Disk: ...

    @overload
    def attach_disk(
        self, image: bytes | str | os.PathLike[str] | Backing, *, read_only: bool = False, live: Literal[True]
    ) -> LiveDisk: ...

    def attach_disk(
        self, image: bytes | str | os.PathLike[str] | Backing, *, read_only: bool = False, live: bool = False
    ) -> Disk | LiveDisk:
        """Make an image (its bytes, or the path of a file of this host) a disk of the guest. Mount its ``device``.

        By the guest's loop driver and as a copy in its memory: ``Disk.data`` gives what became of it. ``live``: a disk
        of its own on the PCI bus; reads and writes go to the file itself, or to any object with the methods of
        ``devices.backing.Backing``.
        """
        if live:
            from kobox.devices.disks import attach_live

            return attach_live(self._plugger, image, read_only)
        from kobox.kernel.disks import attach

        if not isinstance(image, bytes | str | os.PathLike):
            raise UsageError("an object that stands for a disk is attached live", hint="live=True")

        data = image if isinstance(image, bytes) else Path(image).read_bytes()
        return attach(self.files, data, read_only)

    def plug(self, model: PciFunction | UsbDevice, *, probe: bool = True) -> Plugged:
        """Plug a device into the PCI bus or a USB port, and do for it what udev does: load the modules of what the
        kernel finds.

        It belongs to the state: a reset to before takes it away, one to after has it as it was then. Not ``probe``: no
        module is loaded (see docs/devices.md).
        """
        return self._plugger.plug(model, probe=probe)

    def unplug(self, device: Plugged, *, surprise: bool = False) -> None:
        """Take a device away after its driver has let it go; ``surprise``: pull it out first."""
        self._plugger.unplug(device, surprise=surprise)

    @cached_property
    def _plugger(self) -> Plugger:
        from kobox.devices.plug import Plugger

        return Plugger(self.guest.pc.pci, self.files, self.syscalls, self._load_alias)

    def _load_alias(self, alias: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """Load what a device's alias stands for; see ``plug.LoadAlias``."""
        from kobox.depot.kernel_target import KernelTarget
        from kobox.depot.targets import execute
        from kobox.kernel.tasks import TaskDied

        plan = self.modprobe_program.resolver.insert(alias, use_blacklist=True)
        said = [f"{probe.module}: {probe.refused}" for probe in plan.probes if probe.refused is not None]
        before = {module.name for module in self.modules}
        try:
            if plan.probes:
                execute(plan, KernelTarget(self))
        except (Errno, TaskDied) as error:
            said.append(str(error))
        loaded = tuple(reversed([module.name for module in self.modules if module.name not in before]))
        return tuple(probe.module for probe in plan.probes), loaded, tuple(said)

    @cached_property
    def crypto(self) -> Crypto:
        """The kernel's crypto API, by its sockets."""
        from kobox.net.crypto import Crypto

        return Crypto(self.syscalls)

    @cached_property
    def dm(self) -> DeviceMapper:
        """Device-mapper devices of the guest."""
        from kobox.kernel.device_mapper import DeviceMapper

        return DeviceMapper(self.files)

    @cached_property
    def net(self) -> Net:
        """Network devices, addresses and sockets of the guest."""
        from kobox.net.links import Net

        return Net(self.syscalls)

    # -- what a user sees -----------------------------------------------------------------------------------------

    def dmesg(self, *, boot: bool = False) -> list[LogRecord]:
        """The log since this kernel was handed over; with ``boot`` everything."""
        self.booted.log.read()
        return list(self.booted.log.records) if boot else list(self.booted.log.since(self._marks.log))

    def syslog(self, action: int, value: int = 0) -> int:
        """``syslog(2)`` without a buffer: clear the log (5), console off, on, at a level (6, 7, 8)."""
        return self.syscalls.checked(f"syslog {action}", "syslog", action, 0, value)

    def log_start(self) -> int:
        """Sequence number of the first record that was not cleared; of the next one where there is none."""
        self.booted.log.read()
        first = self.files.first_log_record()
        return self.booted.log.position()[1] if first is None else first

    def follow_log(self) -> Callable[[bool], list[LogRecord]]:
        """See ``Log.follow``."""
        return self.booted.log.follow()

    @property
    def keyrings(self) -> list[Ring]:
        """Whom the kernel trusts now: its rings in the order in which they are asked, read from its memory."""
        return self.modules_room.loader.keyrings.all()

    @property
    def dead(self) -> str:
        """Why the kernel has stopped for good; empty while it lives."""
        return self.guest.tasks.dead

    @property
    def tainted(self) -> int:
        """The kernel's taint value."""
        return self.guest.read_uint(self.guest.symbol("tainted_mask"))

    def call(self, function: str | int, *arguments: int) -> int:
        """Call guest code: an exported function, any kernel symbol, or an address. Returns the 64-bit result."""
        if isinstance(function, str) and function not in self.guest.symbols:
            function = self._module_symbol(function)
        return self.guest.call(function, *arguments)

    def _module_symbol(self, name: str) -> int:
        for line in self._kallsyms_of_modules():
            address, _, symbol, _ = line.split(None, 3)
            if symbol == name:
                return int(address, 16)
        raise UsageError(f"no symbol {name!r} in the kernel or its modules")

    def _kallsyms_of_modules(self) -> Iterator[str]:
        for line in self.read("/proc/kallsyms").decode("latin-1").splitlines():
            if line.endswith("]"):
                yield line


__all__ = ["Kernel", "Module", "ModuleRecord", "boot"]
