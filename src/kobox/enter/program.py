"""The program's side of ``kobox enter``: this process becomes the program, inside of its namespaces.

Steps that need the keeper (numbers of users, a served tree) are messages on a socket to it: one byte each, descriptors
beside it.
"""

from __future__ import annotations

import array
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress

from kobox.enter import namespace, paths, seccomp
from kobox.enter.answers import NUMBERS
from kobox.enter.system import System
from kobox.errors import KoboxError

SEPARATE, TREES, CATCH = b"s", b"t", b"c"
"""To the keeper: we are in our namespace; here are the trees' connections; here is the filter's listener."""
_HOST_TREES = ("proc", "dev")


def send(connection: socket.socket, what: bytes, descriptors: Sequence[int] = ()) -> None:
    """One message; the descriptors stay ours, too."""
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    connection.sendmsg([what], control)


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """One message; empty at the end."""
    numbers = array.array("i")
    what, control, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(8 * numbers.itemsize))
    for level, kind, payload in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(payload[: len(payload) // numbers.itemsize * numbers.itemsize])
    return what, list(numbers)


def enter(keeper: socket.socket, system: System, stage: str, with_files: bool, with_calls: bool) -> None:
    """Go in. ``stage``: a folder to mount on, which nobody else sees in use."""
    where = os.getcwd()
    namespace.separate()
    send(keeper, SEPARATE)
    if receive(keeper)[0] != SEPARATE:
        raise KoboxError("the keeper has gone")
    os.setgid(0)
    os.setuid(0)
    namespace.detach()
    _show_modules(system)
    if with_files:
        _show_kernel(keeper, stage)
    os.chdir(where)
    if with_calls:
        listener = seccomp.install(NUMBERS.values())
        send(keeper, CATCH, [listener])
        os.close(listener)
        if receive(keeper)[0] != CATCH:
            raise KoboxError("the keeper has gone")


def _show_kernel(keeper: socket.socket, stage: str) -> None:
    """The kernel's trees over ours, and what stays ours over these."""
    namespace.mount_memory(stage)
    for name in ("root", "modules", *_HOST_TREES):
        os.mkdir(f"{stage}/{name}")
    tree, modules = namespace.mount_fuse(f"{stage}/root"), namespace.mount_fuse(f"{stage}/modules")
    for name in _HOST_TREES:
        namespace.bind(f"/{name}", f"{stage}/{name}")
    send(keeper, TREES, [tree, modules])
    os.close(tree)
    os.close(modules)
    if receive(keeper)[0] != TREES:
        raise KoboxError("the keeper has gone")
    devices = os.open(f"{stage}/root{paths.DEVICES.decode()}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    send(keeper, TREES, [devices])
    os.close(devices)
    for name in ("proc", "sys", "dev"):
        namespace.bind(f"{stage}/root/{name}", f"/{name}")
    namespace.bind(f"{stage}/proc", f"/proc/{paths.HOST_PROC.decode()}")
    namespace.bind(f"{stage}/modules", "/sys/module")
    for raw in sorted(paths.HOST_DEVICES):
        name = raw.decode()
        if os.path.lexists(f"{stage}/dev/{name}"):
            namespace.bind(f"{stage}/dev/{name}", f"/dev/{name}")


def _show_modules(system: System) -> None:
    place = f"/lib/modules/{system.release}"
    namespace.make_folder(place)
    namespace.bind(system.modules, place)
    for name, source in system.folders.items():
        namespace.bind(source, f"{place}/{name}")
    for source, target in system.configuration:
        namespace.make_folder(target)
        namespace.bind(source, target)


def become(command: Sequence[str], system: System, session: str) -> None:
    """Execute the command; ``OSError`` where that fails."""
    environment = dict(os.environ)
    path = environment.get("PATH", "/usr/bin:/bin")
    added = [one for one in ("/usr/sbin", "/sbin") if one not in path.split(":")]
    environment["PATH"] = ":".join([system.programs, path, *added])
    environment["KOBOX_SESSION"] = session
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # which Python has set aside for itself
    with suppress(FileNotFoundError):
        os.execvpe(command[0], list(command), environment)
    raise FileNotFoundError(2, "No such file or directory", command[0])
