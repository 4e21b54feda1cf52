"""Guest tasks that work for Python: every call from Python into the kernel runs in one, so that it may sleep.

The first process of the kernel never executes a program; it serves here. It makes workers. Whatever a worker calls
returns to one place (``syscall_frame``), a trap, where its result is taken and it gets its next job. Between calls the
machine simply rests inside the trap of the worker that returned last, so that a call costs one trap and no scheduling.
A worker that is needed no longer parks itself in ``schedule()``; one that died in its job (the kernel kills a task that
oopses) is replaced.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from kobox.errors import Errno, GuestError
from kobox.kernel.guest import Guest
from kobox.kernel.syscall_frame import SyscallFrame
from kobox.machine.machine import (
    IF,
    INVALID_OPCODE,
    PROTECTION,
    RAX,
    RFLAGS,
    RIP,
    SLICE_NS,
    SLICE_SECONDS,
    Halted,
)

_SIGCHLD = 17
_CLONE_VM, _CLONE_FS_FILES, _CLONE_UNTRACED = 0x100, 0x200 | 0x400, 0x80_0000
_CLONE_ARGS_AT = 544, 744
"""Where in kobox's own memory the arguments of a clone lie: of the first process, and of a worker."""
_ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
_FAST_SLICE_NS = 1_000_000_000
_MANY_READS = 100
_PATIENCE = 30
"""How much longer than ``real_limit`` code may run that calls the kernel now and then."""
_SIGINT, _SIGKILL = 2, 9
_TIF_SIGPENDING = 1 << 2
_TASK_WAKEKILL = 0x100  # include/linux/sched.h: sleeps that only a deadly signal ends
_RESTARTS = frozenset({512, 513, 514, 516})
"""What interrupted code answers where the kernel would start the system call again (include/linux/errno.h)."""
_EINTR = 4
_HEED, _GIVE_UP = 0.3, 3.0
"""Seconds in which an interrupted call should end by itself, and after which it is left behind."""
_SPINNING = frozenset({"native_queued_spin_lock_slowpath", "queued_read_lock_slowpath", "queued_write_lock_slowpath"})
USER_SPACE = (1 << 47) - 4096
"""End of user addresses with four-level paging."""
_STACK_LIMIT, _STACK_LIMIT_AT = 8 << 20, 512
"""The usual limit of a process's stack, and where in the mailbox page the kernel reads it from."""


class TaskDied(GuestError):
    """The guest killed the task that ran a job (an oops, or ``do_exit`` from inside it)."""


class JobTimeout(GuestError):
    """A job did not return within the virtual time it was given."""


class KernelDead(GuestError):
    """The guest kernel has stopped for good (panic, or nothing left that could run)."""


@dataclass(slots=True, eq=False)
class Job:
    """One call. ``task`` is the task_struct that runs it, ``result`` its 64-bit result once ``done``.

    ``following`` is given the result and answers with another call for the same task to make at once, or None; the job
    is done with the last one's result.
    """

    function: int
    arguments: tuple[int, ...]
    comm: str = ""
    following: Callable[[int], tuple[int, ...] | None] | None = None
    task: int = 0
    result: int = 0
    done: bool = False
    died: bool = False


class Killed(NamedTuple):
    """A task that was stopped at ``rip`` after ``seconds`` of real time."""

    rip: int
    seconds: float


@dataclass(slots=True)
class _Interruption:
    """Somebody wants the present call to end. ``since``: when, in seconds; ``job``: who was sent a signal."""

    since: float
    job: Job | None = None
    killed: bool = False
    """Whether the deadly signal was sent, too."""


@dataclass(slots=True)
class TaskState:
    """What a snapshot keeps of this room."""

    server: int = 0
    parked: list[int] = field(default_factory=list)
    resting: int = 0
    """The worker inside whose trap the machine rests; 0: none."""
    mm: int = 0
    """The address space that all workers share."""
    listener: int = 0
    """The task that hears uevents (``udev``); 0: none, -1: it is being made."""
    listener_socket: int = -1

    def copy(self) -> TaskState:
        return replace(self, parked=list(self.parked))


class Tasks:
    """The workers of one guest."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.state = TaskState()
        self.jobs: deque[Job] = deque()
        self.running: dict[int, Job] = {}
        """Jobs in flight by worker task."""
        self.virtual_limit_ns = 250 * 1_000_000_000
        self.real_limit = 10.0
        """Seconds of processor time after which a job is killed that never left a module's own code; one that calls the
        kernel all the time may well be at work, and gets several times as much."""
        self.dead = ""
        """Why the kernel has stopped for good; empty while it lives."""
        self._interruption: _Interruption | None = None
        self._finishing: Job | None = None
        """The job that Python waits for."""
        self.comm = "kobox"
        self.slice_seconds = SLICE_SECONDS
        """Real time after which code that never traps is looked at: at once while somebody wants it to end."""
        guest.machine.on_slice = self._on_slice
        guest.machine.patience = lambda: self.slice_seconds if self._interruption is None else SLICE_SECONDS
        area = guest.machine.area
        self._born = area.bare_stub("tasks: worker starts", self._on_born)
        self._returned = area.bare_stub("tasks: call returned", self._on_returned)
        self._resume = area.bare_stub("tasks: in-place call done", self._next_in_place)
        self._in_place: list[tuple[dict[str, int], list[tuple[int, ...]]]] = []
        self._frame = SyscallFrame(guest, self._returned)
        self._unborn = 0
        """Workers that were made and have not run yet."""
        self._then: dict[int, Callable[[int], None]] = {}
        """By task: what to do with the result of the call it is in, where that is no job of a worker."""
        self.on_heard: Callable[[int], None] = lambda result: None
        """What to do with the result of the listener's call when it began before a reset."""
        self._panicking = False
        """Whether a panic was seen, at the last look."""
        self._over: Callable[[], bool] = _never
        self._started = 0.0
        self._left_module = False
        self._deaf = 0, 0.0
        """The task that has kept interrupts off, and since when (processor time); 0: none has."""
        self.killed: list[Killed] = []
        """Jobs that had to be stopped because they never paused."""
        layouts = guest.layouts
        self._state_at = layouts.offset("task_struct", "__state")
        self._exit_at = layouts.offset("task_struct", "exit_state")
        self._named: dict[int, str] = {}
        self._comm_at = layouts.offset("task_struct", "comm")
        self._works_at = layouts.offset("task_struct", "task_works")
        self._mm_at = layouts.offset("task_struct", "mm")
        self._idle_state = 0x402  # TASK_IDLE: TASK_UNINTERRUPTIBLE | TASK_NOLOAD, include/linux/sched.h

    # -- starting -----------------------------------------------------------------------------------------------

    def take_over_first_process(self) -> None:
        """Called in the trap where the kernel would execute its init program: serve instead, for ever."""
        if self.state.server:
            self.guest.machine.fault_here(PROTECTION)
            return
        self.state.server = self.guest.current
        self._frame.install()
        self._frame.fill()
        self._serve()

    def bring_up(self) -> None:
        """Run a booting kernel until its first process serves and a worker rests."""
        self._run(lambda: self.ready)

    @property
    def ready(self) -> bool:
        """Whether a worker rests, waiting for a job."""
        return self.state.resting != 0

    def reset(self, state: TaskState) -> None:
        """Take up the workers of a snapshot; jobs in flight are gone with the state they ran in."""
        self.state = state
        self.jobs.clear()
        self.running.clear()
        self.killed.clear()
        self._named.clear()
        self.dead = ""
        self._in_place.clear()
        self._then.clear()
        self._frame.forget()
        self._unborn = 0
        self._panicking = False

    # -- calling ------------------------------------------------------------------------------------------------

    def call(self, function: int, *arguments: int) -> int:
        """Run one job to its end and return its result."""
        job = self.start(function, *arguments)
        self.finish(job)
        if job.died:
            raise TaskDied(f"the task that ran {self.guest.symbols.at(function) or hex(function)} was killed")
        return job.result

    def start(self, function: int, *arguments: int) -> Job:
        """Queue a job; it runs when the machine runs next."""
        job = Job(function, tuple(value & 0xFFFF_FFFF_FFFF_FFFF for value in arguments), self.comm)
        self.jobs.append(job)
        return job

    def interrupt(self, wanted: bool = True) -> None:
        """End the call that runs now, or the next one; not ``wanted``: take that back. Any thread may ask.

        Its task gets a signal, so that an interruptible sleep ends and answers EINTR; then a deadly one, for sleeps
        that only such a one ends; what spins and pays no heed is stopped as the watchdog stops it; what sleeps and
        cannot be woken is left behind after three seconds (``Errno(EINTR)``). Asking again changes nothing.
        """
        if not wanted:
            self._interruption = None
        elif self._interruption is None:  # asked again and again, it must still come to force
            self._interruption = _Interruption(time.monotonic())

    def finish(self, job: Job, virtual_ns: int | None = None) -> None:
        """Run the guest until the job has returned or its task is dead; ``JobTimeout`` after so much virtual time."""
        machine = self.guest.machine
        limit = machine.clock.now - machine.sliced_ns + (self.virtual_limit_ns if virtual_ns is None else virtual_ns)

        def over() -> bool:
            if job.done:
                return self.ready or machine.idle
            if not machine.idle:
                return False  # asked after every trap: whether the task is dead can wait until nothing runs
            if self._check_dead(job):
                return True
            if machine.clock.now - machine.sliced_ns > limit:
                raise JobTimeout("no result within its virtual time")
            return False

        self._finishing = job
        self._run(over)
        self._rest()
        if self._interruption is not None and self._interruption.job is job:
            self._end_interruption(job)

    @property
    def interrupted(self) -> bool:
        """Whether somebody waits for the present call to end."""
        return self._interruption is not None

    # -- interrupting -------------------------------------------------------------------------------------------

    def _send_signal(self, job: Job, asked: _Interruption) -> int:
        """Make a signal pending for the job's task; the state of sleeps that it must be woken from.

        Nobody else looks at these words: the guest stands still, and a worker never returns to where signals are dealt
        with.
        """
        guest = self.guest
        asked.killed = asked.job is job and time.monotonic() - asked.since > _HEED
        asked.job = job
        pending = guest.view("task_struct", job.task).at("pending.signal")
        number = _SIGKILL if asked.killed else _SIGINT
        guest.write_uint(pending, guest.read_uint(pending) | 1 << number - 1)
        flags = guest.view("task_struct", job.task).at("thread_info.flags")
        guest.write_uint(flags, guest.read_uint(flags) | _TIF_SIGPENDING)
        return _TASK_WAKEKILL if asked.killed else 0

    def _sleeps_on(self) -> bool:
        """At idle: the job that is to end sleeps, and there is something left to do about it."""
        asked, job = self._interruption, self._finishing
        if asked is None or job is None or not job.task or not self.guest.machine.idle:
            return False
        lasted = time.monotonic() - asked.since
        return asked.job is not job or (lasted > _HEED and not asked.killed) or lasted > _GIVE_UP

    def _wake_interrupted(self) -> None:
        """Wake the sleeping job by a signal, once by each; at last give it up."""
        asked, job = self._interruption, self._finishing
        assert asked is not None
        assert job is not None
        if time.monotonic() - asked.since > _GIVE_UP:
            self._interruption = None
            raise Errno(_EINTR, "the call was interrupted, but sleeps where nothing can wake it; it was left behind")
        state = self._send_signal(job, asked)
        self.call_in_place((self.guest.symbol("signal_wake_up_state"), job.task, state))

    def _heed_interruption(self, asked: _Interruption) -> tuple[float, float]:
        """Code runs that somebody wants to end: how long that has been so, and how long it may be."""
        job = self.running.get(self.guest.current)
        if job is not None and asked.job is not job:
            self._send_signal(job, asked)
        return time.monotonic() - asked.since, _HEED * (_PATIENCE / 10 if self._left_module else 1)

    def _end_interruption(self, job: Job) -> None:
        """The job that was sent a signal has ended: its task must not find the signal in its next job."""
        self._interruption = None
        if job.died:
            return
        self.call(self.guest.symbol("flush_signals"), job.task)
        if (1 << 32) - (job.result & 0xFFFF_FFFF) in _RESTARTS:
            job.result = -_EINTR & 0xFFFF_FFFF_FFFF_FFFF

    def run_until_blocked(self, job: Job, patience_ns: int = 0) -> None:
        """Run until the job has ended, or until everything in the guest waits for time to pass; so much virtual time
        is let pass first."""
        machine = self.guest.machine
        clock = machine.clock
        limit = clock.now + patience_ns

        def blocked() -> bool:
            return machine.idle and (job.done or clock.now >= limit or clock.deadline is None)

        self._run(lambda: (job.done and self.ready) or self._check_dead(job) or blocked())

    def sleep(self, nanoseconds: int) -> None:
        """Let virtual time pass: the guest's timers and work run."""
        self.call(self.guest.symbol("msleep"), max(1, nanoseconds // 1_000_000))

    def _run(self, over: Callable[[], bool]) -> None:
        machine = self.guest.machine
        if self.jobs:
            if self.ready:
                self._give(self.jobs.popleft())
            elif machine.idle:
                self._wake_spare()
        elif self.state.server and over():
            return
        elif self.ready:
            # an older job goes on: the worker in whose trap the machine rests has nothing to do
            task, self.state.resting = self.state.resting, 0
            self._park_worker(task)
        if self.dead:
            raise KernelDead(f"the kernel has stopped: {self.dead}", hint="reset() it, or boot anew")
        self._over = over
        self._started = time.thread_time()
        self._left_module = False
        try:
            machine.run(lambda: over() or self._starved() or self._sleeps_on())
            while not over() and (self._starved() or self._sleeps_on()):
                if self._starved():
                    self._wake_spare()
                else:
                    self._wake_interrupted()
                machine.run(lambda: over() or self._starved() or self._sleeps_on())
        except Halted as halted:
            self._stop_halted(over, halted)
        except GuestError as error:
            if not isinstance(error, (JobTimeout, TaskDied, KernelDead)):
                self.dead = str(error)
            raise
        finally:
            self._over = _never
            machine.slice_ns = SLICE_NS

    def _starved(self) -> bool:
        """A job waits, everybody sleeps, and no worker is there to take it."""
        return bool(self.jobs) and self.guest.machine.idle and not self.ready

    def _stop_halted(self, over: Callable[[], bool], halted: Halted) -> None:
        """``hlt`` with interrupts off never ends: the task that did it dies as of an invalid instruction."""
        if not self.running:
            self.dead = str(halted)
            raise halted
        self.guest.machine.fault_here(INVALID_OPCODE)
        self._run(over)

    def _on_slice(self) -> None:
        """A job has run for a while: let time pass faster and faster, so that the kernel's own lockup detector speaks
        up; at last kill it, preferably while it executes a module's code."""
        if not self.state.server:
            return  # still booting
        if self.guest.has("panic_cpu") and self._panicked() and not self._panicking:
            self._panicking = True  # it may be in the middle of its last words: dead at the next look
            return
        if self._panicking:
            self.dead = "kernel panic"
            raise KernelDead("kernel panic", hint="the log says why; reset() the kernel, or boot anew")
        machine = self.guest.machine
        rip = machine.cpu.read(RIP)
        in_module = not self.guest.in_kernel_text(rip)
        deadlocked = self._waits_for_lock(rip) or self._is_deaf()
        only_waits = self.guest.pc.reads_in_a_row > _MANY_READS  # of the clock, and nothing else
        self._left_module = self._left_module or not (in_module or only_waits or deadlocked)
        if self.guest.current not in self.running and not in_module and not deadlocked:
            return  # whoever sleeps is no runaway: ``finish`` has a limit of virtual time for that
        lasted = time.thread_time() - self._started
        limit = self.real_limit * (_PATIENCE if self._left_module and not deadlocked else 1)
        if self._interruption is not None and (in_module or self.guest.current in self.running):
            lasted, limit = self._heed_interruption(self._interruption)
        if lasted < limit / 4:
            return
        machine.slice_ns = _FAST_SLICE_NS
        if lasted > (limit if in_module or deadlocked else 2 * limit):
            self._started = time.thread_time()
            self.killed.append(Killed(rip, lasted))
            machine.fault_here(INVALID_OPCODE)

    def _waits_for_lock(self, rip: int) -> bool:
        """Whether the code at ``rip`` spins for a lock: with one CPU nobody will ever release it."""
        found = self.guest.symbols.at(rip)
        return found is not None and found.name in _SPINNING

    def _is_deaf(self) -> bool:
        """Whether one task has kept interrupts off for all of ``real_limit``: nothing else will ever run again."""
        now, machine = time.thread_time(), self.guest.machine
        task = 0 if machine.cpu.read(RFLAGS) & IF else self.guest.current
        if task != self._deaf[0]:
            self._deaf = task, now
        return task != 0 and now - self._deaf[1] > self.real_limit

    def _panicked(self) -> bool:
        return self.guest.read_int(self.guest.symbol("panic_cpu"), 4, True) != -1

    def _rest(self) -> None:
        """Bring some worker to its resting place, after the last one died or blocked."""
        machine = self.guest.machine
        if not self.ready:
            self._run(lambda: machine.idle or self.ready)
        if not self.ready:
            self._wake_spare()
            self._run(lambda: self.ready)

    def _wake_spare(self) -> None:
        """At idle: make a parked worker runnable, or ask the server for a new one."""
        self._check_parked()
        task = self.state.parked.pop() if self.state.parked else self.state.server
        self.call_in_place((self.guest.symbol("wake_up_process"), task))

    def _check_parked(self) -> None:
        self.state.parked = [task for task in self.state.parked if not self.is_dead(task)]

    def is_dead(self, task: int) -> bool:
        """Whether a task has ended."""
        return self.guest.read_uint(task + self._exit_at, 4) != 0

    def _check_dead(self, job: Job) -> bool:
        if job.task and not job.died and self.is_dead(job.task):
            job.died = True
            self.running.pop(job.task, None)
        return job.died

    # -- calls in the middle of a trap --------------------------------------------------------------------------

    def number_call(self, function: int, number: int) -> None:
        """That a function is a system call, and which."""
        self._frame.numbers[function] = number

    def call_in_place(self, *calls: tuple[int, ...]) -> None:
        """From a trap handler (or at idle): have the present task make calls before it goes on.

        Each call is ``(function, argument, ...)``; they run in order, results are lost, registers are put back.
        """
        self._in_place.append((self.guest.machine.registers(), list(calls)))
        self._next_in_place()

    def _next_in_place(self) -> None:
        machine = self.guest.machine
        if not self._in_place:
            machine.fault_here(PROTECTION)  # nobody called: guest code jumped here of its own accord
            return
        registers, calls = self._in_place[-1]
        if not calls:
            self._in_place.pop()
            machine.set_registers(registers)
            return
        function, *arguments = calls.pop(0)
        # the red zone is not used by kernel code, but a stub's return address lies at rsp
        rsp = (registers["rsp"] - 256 & ~15) - 8
        machine.pages.write(rsp, struct.pack("<Q", self._resume))
        values = dict(zip(_ARGUMENTS, (a & 0xFFFF_FFFF_FFFF_FFFF for a in arguments), strict=False))
        machine.set_registers(values | {"rsp": rsp, "rip": function, "rax": 0})

    # -- traps --------------------------------------------------------------------------------------------------

    def _on_born(self) -> None:
        """A new worker's first instruction."""
        if not self._unborn:
            self.guest.machine.fault_here(PROTECTION)  # guest code jumped here of its own accord
            return
        self._unborn -= 1
        task = self.guest.current
        self.running.pop(task, None)  # of a task that died, and had its structure here before
        self._then.pop(task, None)
        self._frame.fill()
        self._next_job(task)

    def _on_returned(self) -> None:
        """The call that a worker or the first process was in has returned."""
        if not self._frame.is_left():
            self.guest.machine.fault_here(PROTECTION)
            return
        task, result = self.guest.current, self.guest.machine.cpu.read(RAX)
        self._frame.left(task)
        job, then = self.running.pop(task, None), self._then.pop(task, None)
        if job is not None and job.following is not None:
            call = job.following(result)
            if call is not None:
                self.running[task] = job
                self._call(*call)
                return
        if job is not None:
            job.result = result
            job.done = True
        if then is not None:
            then(result)
        elif task == self.state.server:
            self._serve()
        elif task == self.state.listener:
            self.on_heard(result)
        else:
            self._next_job(task)

    def _call(self, function: int, *arguments: int, then: Callable[[int], None] | None = None) -> None:
        """Have the present task make a call of kobox's own."""
        self.guest.machine.set_registers(dict(zip(_ARGUMENTS, arguments, strict=False)))
        if then is not None:
            self._then[self.guest.current] = then
        self._frame.enter(function)

    def become_process(self, then: Callable[[], None]) -> None:
        """In a trap of a task that is no worker and never goes back where it came from: make it an ordinary process in
        the kernel's eyes, then call ``then``, in a trap as well."""
        self._frame.fill()
        if self.guest.read_uint(self.guest.current + self._mm_at):
            then()
        else:
            self._give_address_space(self.guest.current, lambda _: then())

    def call_here(self, job: Job, then: Callable[[int], None]) -> None:
        """In a trap of such a task: have it make this call, then give the result to ``then``."""
        job.task = self.guest.current
        self.running[job.task] = job
        self._call(job.function, *job.arguments, then=then)

    def exit_here(self, status: int) -> None:
        """In a trap of such a task: it ends with this exit status."""
        self._call(self.guest.symbol("do_group_exit"), status << 8)

    def make_task(self, entry: int) -> None:
        """Make a task that begins at ``entry``; it shares what the workers share."""
        self.call(*self._maker(entry, _CLONE_ARGS_AT[1]))

    def _maker(self, entry: int, arguments_at: int) -> tuple[int, ...]:
        """The call that makes a task, as a program's clone(2) would: what ``user_mode_thread`` does, which later
        kernels keep for helper programs that share nothing."""
        guest = self.guest
        if not guest.layouts.has("kernel_clone_args", "fn"):
            return (guest.symbol("kernel_thread"), entry, 0, _CLONE_FS_FILES | _SIGCHLD)
        address = guest.machine.area.mailbox_addr + arguments_at
        guest.write(address, bytes(guest.layouts.size("kernel_clone_args")))
        arguments = guest.view("kernel_clone_args", address)
        arguments["flags"] = _CLONE_FS_FILES | _CLONE_VM | _CLONE_UNTRACED
        arguments["exit_signal"] = _SIGCHLD
        arguments["fn"] = entry
        return (guest.symbol("kernel_clone"), address)

    def _serve(self) -> None:
        """The first process makes a worker unless one is ready, and sleeps until another is needed."""
        if self.ready:
            self._park()
            return
        self._unborn += 1
        self._call(*self._maker(self._born, _CLONE_ARGS_AT[0]), then=lambda _pid: self._park())

    def _next_job(self, task: int) -> None:
        """The present task is a worker with nothing to do."""
        if not self.guest.read_uint(task + self._mm_at):
            self._give_address_space(task)
        elif self.guest.read_uint(task + self._works_at):
            # what a return to user mode would do: the last close of a file happens there
            self._call(self.guest.symbol("task_work_run"))
        elif self.jobs:
            self.state.resting = task
            self._give(self.jobs.popleft())
        elif self.ready:
            self._park_worker(task)
        else:
            self.state.resting = task
            if not self._over():
                self.state.resting = 0
                self._park_worker(task)

    def _give_address_space(self, task: int, then: Callable[[int], None] | None = None) -> None:
        """Make a new worker an ordinary process in the kernel's eyes: all of them share one (empty) address space."""
        guest = self.guest
        if not self.state.mm:
            self._call(guest.symbol("mm_alloc"), then=self._lay_out_address_space)
            return
        mm, init_mm = self.state.mm, guest.symbol("init_mm")
        users = guest.layouts.offset("mm_struct", "mm_users")
        guest.write_uint(mm + users, guest.read_uint(mm + users, 4) + 1, 4)
        guest.write_uint(task + self._mm_at, mm)
        guest.write_uint(task + guest.layouts.offset("task_struct", "active_mm"), mm)
        self._call(guest.symbol("switch_mm"), init_mm, mm, task, then=then)

    def _lay_out_address_space(self, mm: int) -> None:
        guest = self.guest
        self.state.mm = mm
        guest.view("mm_struct", mm)["task_size"] = USER_SPACE
        limit = guest.machine.area.mailbox_addr + _STACK_LIMIT_AT
        guest.write(limit, struct.pack("<2Q", _STACK_LIMIT, (1 << 64) - 1))
        self._call(guest.symbol("arch_pick_mmap_layout"), mm, limit)

    def _give(self, job: Job) -> None:
        """Hand a job to the worker in whose trap the machine rests."""
        machine, task = self.guest.machine, self.state.resting
        self.state.resting = 0
        job.task = task
        self.running[task] = job
        if self._named.get(task) != job.comm:
            self.name(task, job.comm)
        values = dict(zip(_ARGUMENTS, job.arguments, strict=False))
        machine.set_registers(values | {"rax": 0})
        self._frame.enter(job.function)

    def name(self, task: int, comm: str) -> None:
        """Set what the kernel calls a task, as executing a program does."""
        self._named[task] = comm
        self.guest.write(task + self._comm_at, comm.encode("utf-8", "surrogateescape")[:15].ljust(16, b"\0"))

    def _park_worker(self, task: int) -> None:
        self.state.parked.append(task)
        self._park()

    def _park(self) -> None:
        """The present task goes to sleep in ``schedule()`` and looks for work when woken."""
        self.guest.write_uint(self.guest.current + self._state_at, self._idle_state, 4)
        self._call(self.guest.symbol("schedule"))


def _never() -> bool:
    return False
