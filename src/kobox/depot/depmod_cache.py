"""What depmod remembers of a tree between runs: what it read in each module, and which files it wrote from that.

A module is not read again while its path, size, times and inode are the same; a compressed one not even then if its
bytes are. A group of files is not written again while what it is made from is the same and the files are as they were
left. The memory is a guest: a broken, foreign or unwritable one is no memory, never an error.

It lies in kobox's cache as an entry of kind ``depmod`` (a directory with a manifest), so that ``kobox cache`` shows
and removes it. The format of that manifest is ``image.cache``'s; a test holds both together.
"""

from __future__ import annotations

import marshal
import os
import sys
import time
import zlib
from typing import NamedTuple

from kobox import __version__
from kobox.depot.module_facts import Row

_FORMAT = f"depmod 2 {sys.version_info[0]}.{sys.version_info[1]}".encode()
_FILE = "memory"
_MOST_ENTRIES = 16

Stamp = tuple[int, int, int, int]
"""Size, modification and change time in nanoseconds, inode."""

Remembrance = tuple[Stamp, bytes, Row]
"""Of one module: its stamp, the digest of a compressed file's bytes, what was read."""

Messages = list[tuple[str, str]]


class Remembered(NamedTuple):
    """The last run."""

    order: list[str]
    """Paths of the modules in load order."""
    rows: dict[str, Remembrance]
    """By path."""
    groups: dict[str, tuple[dict[str, Stamp], Messages]]
    """Group of files to the files as they were left, and what was said when they were made."""
    inputs: dict[str, Stamp | None]
    """Other files that were read."""


NOTHING = Remembered([], {}, {}, {})


def stamp(path: str) -> Stamp | None:
    """What tells a file from its older self; None when it is missing."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def cache_directory() -> str:
    """Where kobox's cache is, as ``image.cache`` has it: ``$KOBOX_CACHE_DIR``, else ``kobox`` in XDG's cache home."""
    own = os.environ.get("KOBOX_CACHE_DIR")
    if own:
        return own
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    return f"{xdg if xdg.startswith('/') else os.path.expanduser('~/.cache')}/kobox"


class Memory:
    """The memory of one tree and way of writing (``flavour``). ``directory`` is kobox's cache."""

    def __init__(self, directory: str, tree: str, output: str, flavour: str) -> None:
        real = os.path.realpath(tree)
        self._identity = f"{real}\0{os.path.realpath(output)}\0{flavour}"
        digest = zlib.crc32(os.fsencode(self._identity))
        name = "".join(char if char.isascii() and (char.isalnum() or char in "._+~-") else "_" for char in _last(real))
        self.key = f"{name or 'tree'}-{digest:08x}"
        self._kind = f"{directory}/depmod"
        self.path = f"{self._kind}/{self.key}"

    def recall(self) -> Remembered:
        """The last run; ``NOTHING`` when there is none to trust."""
        try:
            with open(f"{self.path}/{_FILE}", "rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_uid != os.geteuid():
                    return NOTHING
                data = file.read()
        except OSError:
            return NOTHING
        head, _, body = data.partition(b"\n")
        if head != _FORMAT + b" %08x" % zlib.crc32(body):
            return NOTHING
        identity, *fields = marshal.loads(body)
        return Remembered._make(fields) if identity == self._identity else NOTHING

    def remember(self, state: Remembered) -> None:
        """Replace the memory; when that can't be done there is none."""
        body = marshal.dumps((self._identity, *state))
        head = _FORMAT + b" %08x\n" % zlib.crc32(body)
        work = f"{self._kind}/.tmp-{self.key}-{os.getpid()}"
        try:
            os.makedirs(work, mode=0o700)
            with open(f"{work}/{_FILE}", "wb") as file:
                file.write(head)
                file.write(body)
            self._manifest(work, zlib.crc32(body, zlib.crc32(head)))
            self._publish(work)
        except OSError:
            _remove(work)

    def _manifest(self, work: str, crc: int) -> None:
        status = os.stat(f"{work}/{_FILE}")
        body = (
            f'{{"kind":"depmod","key":"{self.key}","kobox":"{__version__}","created":{time.time()},'
            f'"files":{{"{_FILE}":[{status.st_size},{status.st_mtime_ns},{crc}]}},"facts":{{}}}}'
        )
        with open(f"{work}/entry.kobox", "w", encoding="ascii") as file:
            file.write(f"kobox-entry 1 {zlib.crc32(body.encode()):08x}\n{body}\n")

    def _publish(self, work: str) -> None:
        grave = f"{self._kind}/.old-{self.key}-{os.getpid()}"
        try:
            os.rename(self.path, grave)
        except FileNotFoundError:
            self._drop_oldest()
        os.rename(work, self.path)
        _remove(grave)

    def _drop_oldest(self) -> None:
        """Keep the entries of this kind few, before a new one comes."""
        entries = sorted((os.stat(entry).st_mtime, entry.path) for entry in os.scandir(self._kind) if entry.is_dir())
        for _, path in entries[: max(len(entries) - _MOST_ENTRIES, 0)]:
            _remove(path)


def is_as_left(state: Remembered, group: str) -> bool:
    """Whether a group's files are as the last run left them."""
    left = state.groups.get(group)
    return left is not None and all(stamp(path) == known for path, known in left[0].items())


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _remove(directory: str) -> None:
    """Delete an entry's directory: files only, one level deep."""
    try:
        for name in os.listdir(directory):
            os.unlink(f"{directory}/{name}")
        os.rmdir(directory)
    except OSError:
        return
