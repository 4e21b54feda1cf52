"""Where sessions live: a folder each, below the user's runtime directory, for nobody else to read.

A folder holds ``socket``, ``calls`` and ``begun`` (see ``calls``), ``session.json`` (what the session is), ``log``
(what its server said) and ``lock``. The server holds the lock as long as it lives, however it ends: whoever gets the
lock knows that there is no server.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kobox.errors import KoboxError, UsageError

API = 1
"""Version of the HTTP API: the first part of every path. A server and its clients must agree on it."""

VARIABLE = "KOBOX_SESSION"
SOCKET, CALLS, ABOUT, LOG, LOCK = "socket", "calls", "session.json", "log", "lock"
BEGUN = "begun"
"""A file of eight bytes for clients to map: how many requests the kernel has begun."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WHOLE_FILE = struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0)
"""``struct flock`` of a lock that belongs to an open file: a child process inherits it, and it goes with the last."""


class Place(NamedTuple):
    """One session's folder. ``about`` is its ``session.json``: empty while it boots."""

    name: str
    folder: Path
    about: dict[str, Any]
    alive: bool

    @property
    def pid(self) -> int:
        return int(self.about.get("pid", 0))


def runtime_root() -> Path:
    """``$XDG_RUNTIME_DIR/kobox``; without one, a folder of this user's own below the temporary directory."""
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if given.startswith("/"):
        return Path(given) / "kobox"
    import tempfile

    return Path(tempfile.gettempdir()) / f"kobox-{os.getuid()}"


def make_root(root: Path) -> None:
    """Make the folder of all sessions."""
    try:
        root.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        hint = "set XDG_RUNTIME_DIR to a directory of your own"
        raise KoboxError(f"sessions cannot be kept in {root}: {error.strerror}", hint) from error
    check_root(root)


def check_root(root: Path) -> None:
    """Refuse a folder of sessions that somebody else may have put there, or can write to."""
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise KoboxError(
            f"{root}: found a folder that others may use ({stat.filemode(status.st_mode)}, owner {status.st_uid}), "
            f"expected one of user {os.getuid()} alone",
            "remove it, or set XDG_RUNTIME_DIR to a directory of your own",
        )


def check_name(name: str) -> str:
    """The name itself, if it can be one."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be the name of a session", "letters, digits, '.', '_' and '-', at most 64")
    return name


def folder_of(name: str) -> Path:
    return runtime_root() / check_name(name)


def places() -> list[Place]:
    """Every session, running or left behind, by name."""
    try:
        check_root(runtime_root())
        names = sorted(entry.name for entry in os.scandir(runtime_root()) if _NAME.fullmatch(entry.name))
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise _denied(runtime_root()) from error
    found = [place_of(name) for name in names]
    return [place for place in found if place is not None]


def place_of(name: str) -> Place | None:
    """The session of that name, or what a killed one left; None when there is neither."""
    folder = folder_of(name)
    try:
        check_root(folder.parent)
        alive = _is_locked(folder / LOCK)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise _denied(folder) from error
    about: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError, ValueError):
        about = json.loads((folder / ABOUT).read_bytes())
    return Place(name, folder, about, alive)


def choose(name: str | None) -> Place | None:
    """The session that a command means: the named one, ``$KOBOX_SESSION``, or the only one there is.

    None: nothing was asked for and none runs. ``KoboxError`` says what to do in every other case.
    """
    wanted = name or os.environ.get(VARIABLE) or None
    if wanted is not None:
        found = place_of(wanted)
        if found is None:
            running = ", ".join(place.name for place in places() if place.alive) or "none"
            raise KoboxError(f"no session {wanted!r}; running: {running}", f"kobox boot --name {wanted}")
        if not found.alive:
            raise gone(found)
        return found
    running_now = [place for place in places() if place.alive]
    if len(running_now) > 1:
        names = ", ".join(place.name for place in running_now)
        raise UsageError(f"{len(running_now)} sessions run: {names}", f"--session NAME, or set {VARIABLE}")
    return running_now[0] if running_now else None


def the_session(name: str | None) -> Place:
    """As ``choose``, where there must be one."""
    found = choose(name)
    if found is None:
        raise KoboxError("no session runs", "kobox boot starts one, kobox restore takes up a saved one")
    return found


def gone(place: Place) -> KoboxError:
    """The error for a session whose server has ended without being asked to."""
    return KoboxError(
        f"session {place.name!r} is gone: its server{f' (process {place.pid})' if place.pid else ''} has ended; "
        f"what it said last is in {place.folder / LOG}",
        f"kobox boot --name {place.name} starts it anew, kobox restore takes up a saved state",
    )


def claim(name: str | None) -> tuple[Path, int]:
    """A folder for a new session and its lock, which the server inherits: the lock's descriptor.

    Without a name the next free of ``k1``, ``k2`` … is taken. What a killed server of that name left is cleared away.
    """
    root = runtime_root()
    make_root(root)
    if name is not None:
        got = _try_claim(root / check_name(name))
        if got is None:
            raise UsageError(f"session {name!r} runs already", f"another --name, or kobox halt --session {name}")
        return root / name, got
    number = 0
    while True:
        number += 1
        folder = root / f"k{number}"
        if (got := _try_claim(folder)) is not None:
            return folder, got


def _try_claim(folder: Path) -> int | None:
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.fcntl(lock, fcntl.F_OFD_SETLK, _WHOLE_FILE)
    except BlockingIOError:
        os.close(lock)
        return None
    if not _same_file(lock, folder / LOCK):  # its last owner removed the folder between the two calls
        os.close(lock)
        return _try_claim(folder)
    for entry in list(os.scandir(folder)):
        if entry.name != LOCK:
            os.unlink(entry.path)
    return lock


def remove(folder: Path) -> None:
    """Take a session's folder away; the caller holds its lock."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """A name for a socket's path that fits the 108 bytes of ``sockaddr_un``, however long the path is."""
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _is_locked(path: Path) -> bool:
    """Asked without taking the lock, so that nobody who wants it is refused meanwhile."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _WHOLE_FILE)
    finally:
        os.close(descriptor)
    kind: int = struct.unpack_from("h", answer)[0]
    return kind != fcntl.F_UNLCK


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _denied(path: Path) -> KoboxError:
    return KoboxError(f"{path}: permission denied: the session belongs to another user", "sessions are private")
