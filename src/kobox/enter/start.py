"""``kobox enter`` from its beginning: two processes, one that becomes the program and the keeper that serves it."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from kobox.enter import namespace, program, seccomp
from kobox.enter.answers import Answers
from kobox.enter.facts import Facts
from kobox.enter.keeper import Loop, serve
from kobox.enter.modules_tree import ModulesTree
from kobox.enter.program import CATCH, SEPARATE, TREES
from kobox.enter.seccomp import Listener
from kobox.enter.system import prepare
from kobox.enter.tree import GuestTree, Handle, Node
from kobox.errors import KoboxError
from kobox.fuse import Session, SessionOptions
from kobox.fuse.wire import Init
from kobox.session.calling import Answer, Caller
from kobox.session.places import Place

_UTS_BYTES = 390
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126


class Host(NamedTuple):
    """What this host lacks, for people; empty: it is there."""

    files: str
    calls: str

    @property
    def complaints(self) -> list[str]:
        """What does not work for lack of it, and what does."""
        said = []
        if self.files:
            said.append(
                f"no FUSE here ({self.files}): /proc, /sys and /dev are this machine's; loading and unloading, "
                "dmesg -S, uname and the module tree are the session's"
            )
        if self.calls:
            said.append(
                f"no seccomp notification here ({self.calls}): system calls go to this machine's kernel, so nothing "
                "can be loaded and no device opened; files of the session's /proc and /sys can be read and written"
            )
        return said


def look_at_host() -> Host:
    """Find out what there is."""
    files = ""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        files = f"/dev/fuse: {error.strerror}"
    return Host(files, seccomp.missing())


def enter(place: Place, command: Sequence[str], complain: Callable[[str], None]) -> NoReturn:
    """Become ``command`` inside of the session's system; never returns. ``KoboxError`` where that cannot be;
    ``complain`` hears what will not work on this host."""
    host = look_at_host()
    if host.files and host.calls:
        raise KoboxError(f"nothing can be shown to programs here: {host.files}; {host.calls}", "see docs/enter.md")
    about = place.about
    folder = None if about.get("modules_folder") is None else Path(about["modules_folder"])
    system = prepare(place.folder, about["release"], folder, about.get("root"))
    stage = place.folder / "stage"
    stage.mkdir(exist_ok=True)
    for complaint in host.complaints:
        complain(complaint)
    caller = Caller(place)
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    me = os.getpid()
    alive_reader, alive_writer = os.pipe()
    if os.fork() == 0:
        ours.close()
        os.close(alive_writer)
        _detach(place.folder / "enter.log")
        os._exit(_keep(its, caller, me, alive_reader))
    its.close()
    caller.close()
    os.close(alive_reader)
    os.set_inheritable(alive_writer, bool(host.calls))  # who holds it lives: the keeper's sign where nothing is caught
    os.wait()  # the middle process
    program.enter(ours, system, str(stage), not host.files, not host.calls)
    ours.close()
    program.become(command, system, place.name)
    raise AssertionError("a program began and returned")


def _detach(log: Path) -> None:
    """This process goes on for itself: no terminal, no child of the program."""
    if os.fork():
        os._exit(0)
    os.setsid()
    nothing, said = os.open(os.devnull, os.O_RDWR), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number, source in ((0, nothing), (1, said), (2, said)):
        os.dup2(source, number)
    os.chdir("/")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def _keep(program_side: socket.socket, caller: Caller, pid: int, alive: int) -> int:
    """The keeper's life: its exit code."""

    def tell(text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    try:
        return _Keeper(program_side, caller, pid, alive).run(tell)
    except KoboxError as error:
        tell(f"kobox enter: {error}")
        return error.exit_code


class _Keeper:
    """Goes through the program's messages while the loop already serves."""

    def __init__(self, program_side: socket.socket, caller: Caller, pid: int, alive: int) -> None:
        self._program, self._caller, self._pid = program_side, caller, pid
        self._every_id = False
        self._devices = -1
        self._names = b""
        self.loop = Loop(caller, alive)
        self.loop.watch(program_side.fileno(), self._take)

    def run(self, tell: Callable[[str], None]) -> int:
        self._caller.follow()
        return serve(self.loop, tell)

    def _take(self) -> None:
        what, descriptors = program.receive(self._program)
        if what == SEPARATE:
            self._every_id = namespace.give_numbers(self._pid)
            program.send(self._program, SEPARATE)
        elif what == TREES and len(descriptors) == 2:
            self._serve(*descriptors)
            program.send(self._program, TREES)
        elif what == TREES:
            (self._devices,) = descriptors
        elif what == CATCH:
            self._catch(descriptors[0])
        else:
            self.loop.unwatch(self._program.fileno())
            self._program.close()
            self.loop.begun()

    def _serve(self, tree: int, modules: int) -> None:
        facts = Facts(self._caller)
        for device, file_system, options in (
            (tree, GuestTree(self._caller, facts, self._every_id), SessionOptions(truncates=True, absence_valid=0.0)),
            (
                modules,
                ModulesTree(self._caller, facts, self._every_id),
                SessionOptions(abilities=int(Init.AUTO_INVAL_DATA)),
            ),
        ):
            session: Session[Node, Handle] = Session(device, file_system, options)
            if session.begin():
                self.loop.add_tree(session)

    def _catch(self, descriptor: int) -> None:
        """The kernel's names first: they are asked for by every program."""
        listener = Listener(descriptor)

        def named(answer: Answer) -> None:
            self.loop.answers = Answers(self.loop, self._caller, listener, self._devices, answer.buffers[0])
            self.loop.listen(listener)
            program.send(self._program, CATCH)

        self._caller.ask([["newuname", {"out": _UTS_BYTES}]], b"", named)
