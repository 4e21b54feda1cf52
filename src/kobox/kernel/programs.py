"""Programs: generators that run as guest tasks of their own, the way a process of user space would.

A program yields guest calls, ``(function, argument, …)``, and is sent each one's 64-bit result; its task makes them, so
that a call may sleep while the rest of the guest goes on. What a program returns is its exit status. It begins where a
process begins: the kernel has executed something and is about to enter user mode. There is no user mode here; instead a
piece of task work (``kernel/task_work.c``), which the kernel runs on that way, is the program, and it never comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kobox.errors import KoboxError
from kobox.kernel.env import Result
from kobox.kernel.guest import Guest, signed64
from kobox.kernel.tasks import Job
from kobox.machine.machine import PROTECTION

_WORKS_AT, _WORKS = 3072, 64
"""Where in the mailbox page the heads of task work lie, and how many: programs that wait for their first call."""
_EXIT_ERROR = 1


@dataclass(slots=True, eq=False)
class Program:
    """One program under way. ``status`` is its exit status once it has ended; ``error``: why it ended, for people."""

    comm: str
    steps: Result
    task: int = 0
    status: int | None = None
    died: bool = False
    """The guest killed its task (an oops)."""
    error: str = ""
    work: int = -1
    """Which head of task work is its own until its first call."""


class Programs:
    """The programs of one guest. All that is kept here belongs to tasks in flight: a reset forgets it."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._by_task: dict[int, Program] = {}
        area = guest.machine.area
        self._entry = area.bare_stub("programs: start", self._on_start)
        self._works = area.mailbox_addr + _WORKS_AT
        self._listener_comm = ""
        self._listener: Callable[[int | None], Result] | None = None
        guest.tasks.on_heard = self._on_heard
        self.listener_busy = False
        """Whether the listener is at work, not waiting for something to hear."""

    def forget(self) -> None:
        """The guest was reset: its tasks are those of another time."""
        self._by_task.clear()
        self.listener_busy = False

    def in_flight(self) -> list[Program]:
        """Programs whose state is partly Python's: while there are any, the guest cannot be put aside."""
        self._bury_dead()
        listener = self._guest.tasks.state.listener
        return [program for task, program in self._by_task.items() if task != listener or self.listener_busy]

    def listen(self, comm: str, steps: Callable[[int | None], Result]) -> None:
        """What the listener does: the one program that outlives a reset, in whatever call it sleeps.

        ``steps`` is given the result of that call, None where there was none; it may keep nothing else between calls.
        """
        self._listener_comm, self._listener = comm, steps

    def start_listener(self) -> None:
        """Make the task of the listener."""
        self._guest.tasks.state.listener = -1
        self._guest.tasks.make_task(self._entry)

    def begin(self, program: Program) -> bool:
        """In a trap of a task that is about to become a process: let it be this program. False: too many at once.

        The trapped function goes on and returns to its caller first.
        """
        guest = self._guest
        self._bury_dead()
        taken = {other.work for other in self._by_task.values()}
        program.work = next((number for number in range(_WORKS) if number not in taken), -1)
        if program.work < 0:
            return False
        program.task = guest.current
        self._by_task[program.task] = program
        guest.tasks.name(program.task, program.comm)
        head = guest.view("callback_head", self._works + program.work * guest.layouts.size("callback_head"))
        head["next"], head["func"] = 0, self._entry
        when = guest.layouts.enum("task_work_notify_mode")["TWA_RESUME"]
        guest.tasks.call_in_place((guest.symbol("task_work_add"), program.task, head.address, when))
        return True

    def _bury_dead(self) -> None:
        for task, program in list(self._by_task.items()):
            if self._guest.tasks.is_dead(task):
                program.died = True
                self._guest.tasks.running.pop(task, None)
                self._gone(program)

    def _gone(self, program: Program) -> None:
        del self._by_task[program.task]
        if self._guest.tasks.state.listener == program.task:
            self._guest.tasks.state.listener, self.listener_busy = 0, False

    # -- traps --------------------------------------------------------------------------------------------------

    def _on_start(self) -> None:
        """The first instruction of a program's task."""
        tasks = self._guest.tasks
        program = self._by_task.get(self._guest.current)
        if program is not None and program.work >= 0:
            program.work = -1
        elif program is None and tasks.state.listener == -1 and self._listener is not None:
            program = self._listen_here(None)
        else:
            self._guest.machine.fault_here(PROTECTION)  # guest code jumped here of its own accord
            return
        tasks.become_process(lambda: self._go_on(program, None))

    def _on_heard(self, result: int) -> None:
        """The listener's call, begun before a reset, has returned."""
        self._go_on(self._listen_here(signed64(result)), None)

    def _listen_here(self, heard: int | None) -> Program:
        """Make the present task the listener: a new one, or one that comes back after a reset."""
        assert self._listener is not None
        task = self._guest.tasks.state.listener = self._guest.current
        program = self._by_task[task] = Program(self._listener_comm, self._listener(heard), task)
        self._guest.tasks.name(task, program.comm)
        return program

    def _go_on(self, program: Program, result: int | None) -> None:
        """Give a program the result of its call, and have its task make the next one, or end."""
        tasks = self._guest.tasks
        call = self._advance(program, result)
        if call is None:
            self._gone(program)
            tasks.exit_here(program.status or 0)
            return
        job = Job(call[0], tuple(value & (1 << 64) - 1 for value in call[1:]), program.comm)
        tasks.call_here(job, lambda result: self._go_on(program, result))

    def _advance(self, program: Program, result: int | None) -> tuple[int, ...] | None:
        """The next call, or None when the program has ended."""
        try:
            return next(program.steps) if result is None else program.steps.send(result)
        except StopIteration as ended:
            program.status = ended.value & 0xFF
        except KoboxError as error:
            program.status, program.error = _EXIT_ERROR, str(error)
        return None
