"""kobox's cache: directories published whole or not at all, checked when they are opened, and never worth keeping.

An entry is a directory ``ROOT/KIND/KEY`` with the files its maker wrote and a manifest ``entry.kobox`` (one line with a
checksum, then JSON): each file's size, time stamp and CRC-32, and the maker's own ``facts``. Entries are made in a
temporary directory under a lock and renamed into place, so that a killed maker leaves nothing a reader can see.
Opening compares sizes and time stamps (microseconds); a file whose time stamp differs is read and its CRC compared.

Nothing here knows what an entry holds. Images, boot snapshots and others each use a ``kind`` of their own.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kobox import __version__
from kobox.errors import BadFile, UsageError

MANIFEST = "entry.kobox"
MAGIC = "kobox-entry 1"
DEFAULT_LIMIT = 4 << 30
"""Bytes on disk before the entries unused for longest are dropped."""

_LIMIT_FILE = "limit"
LOCKS = "locks"
WORK = "work"
"""Directories that change in place (build folders): no entries, not counted, gone with ``clean``."""
_CHUNK = 1 << 22
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~:-]*")


class Entry(NamedTuple):
    """One published directory. ``facts`` is what its maker noted; ``size`` is bytes on disk (holes do not count)."""

    kind: str
    key: str
    path: Path
    facts: Mapping[str, Any]
    size: int
    created: float


class Finding(NamedTuple):
    """What a full check found wrong; ``fixed`` tells whether it was also removed."""

    path: Path
    what: str
    fixed: bool


def default_root() -> Path:
    """``$KOBOX_CACHE_DIR``, else ``kobox`` in the XDG cache directory."""
    own = os.environ.get("KOBOX_CACHE_DIR")
    if own:
        return Path(own)
    return _xdg("XDG_CACHE_HOME", ".cache") / "kobox"


def data_root() -> Path:
    """Where what cannot be made again lives (added images): ``$KOBOX_DATA_DIR``, else ``kobox`` in XDG's data home."""
    own = os.environ.get("KOBOX_DATA_DIR")
    if own:
        return Path(own)
    return _xdg("XDG_DATA_HOME", ".local/share") / "kobox"


def _xdg(variable: str, fallback: str) -> Path:
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else Path.home() / fallback


class Cache:
    """The cache below ``root``; creating the object touches nothing. ``note`` receives one line on each repair."""

    def __init__(self, root: Path | None = None, note: Callable[[str], None] | None = None) -> None:
        self.root = root if root is not None else default_root()
        self._note = note or (lambda text: None)

    # reading

    def entry(self, kind: str, key: str) -> Entry | None:
        """The published entry, or None when there is none. A damaged one is removed, noted, and counts as none."""
        path = self.path(kind, key)
        try:
            entry, files = _read_manifest(path, kind, key)
            _check_files(path, files, full=False)
        except FileNotFoundError:
            if not path.is_dir():
                return None
            self._drop_damaged(path, "no manifest")
            return None
        except BadFile as error:
            self._drop_damaged(path, str(error))
            return None
        with contextlib.suppress(OSError):  # a read-only cache still serves; only the order of eviction suffers
            os.utime(path / MANIFEST)
        return entry

    def path(self, kind: str, key: str) -> Path:
        """Where the entry is, or would be."""
        for part in (kind, key):
            if not _NAME.fullmatch(part):
                raise UsageError(f"cache entry: {part!r} cannot be part of a name")
        return self.root / kind / key

    def entries(self) -> list[Entry]:
        """Every readable entry, by kind and key; damaged ones are left out (``check`` names them)."""
        found = []
        for path in self._directories():
            with contextlib.suppress(BadFile, OSError):
                found.append(_read_manifest(path, path.parent.name, path.name)[0])
        return found

    # writing

    def build(
        self,
        kind: str,
        key: str,
        fill: Callable[[Path], Mapping[str, Any]],
        *,
        replace: bool = False,
    ) -> Entry:
        """The entry, made by ``fill(directory) -> facts`` when it is not there yet. Two makers of one key wait for each
        other, and the second finds the first one's work. An exception in ``fill`` publishes nothing."""
        path = self.path(kind, key)
        with locked(self.root, f"{kind}-{key}"):
            if not replace and (ready := self.entry(kind, key)) is not None:
                return ready
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(path)
            work = Path(tempfile.mkdtemp(prefix=f".tmp-{key}-", dir=path.parent))
            try:
                facts = fill(work)
                _write_manifest(work, kind, key, facts)
                publish(work, path)
            except BaseException:
                shutil.rmtree(work, ignore_errors=True)
                raise
        self.trim(keep=path)
        return _read_manifest(path, kind, key)[0]

    def remove(self, kind: str, key: str) -> bool:
        """Forget an entry; True when there was one. Programs that have it mapped keep what they have."""
        return discard(self.path(kind, key))

    def clean(self, kind: str | None = None) -> int:
        """Remove every entry (of one kind), with what killed makers left; the number of entries removed."""
        kinds = [kind] if kind and kind != WORK else [] if kind else self._kinds()
        removed = 0
        for name in kinds:
            folder = self.path(name, "x").parent
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                removed += discard(path) and not path.name.startswith(".")
        if kind in (None, WORK):
            removed += discard(self.root / WORK)
        return removed

    def check(self, *, fix: bool = False) -> list[Finding]:
        """Read every byte of every entry against its CRC. With ``fix`` what is damaged or left over is removed."""
        findings = []
        for path in self._directories(hidden=True):
            what = _damage(path)
            if what is None:
                continue
            fixed = fix and discard(path)
            findings.append(Finding(path, what, fixed))
        return findings

    # size

    @property
    def limit(self) -> int:
        """Bytes the cache may take: ``$KOBOX_CACHE_LIMIT``, else what ``set_limit`` stored, else 4 GiB; 0: no limit."""
        with contextlib.suppress(KeyError):
            return parse_size(os.environ["KOBOX_CACHE_LIMIT"])
        with contextlib.suppress(OSError, UsageError):
            return parse_size((self.root / _LIMIT_FILE).read_text().strip())
        return DEFAULT_LIMIT

    def set_limit(self, size: int) -> None:
        """Store the limit beside the entries and apply it at once."""
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / _LIMIT_FILE).write_text(f"{size}\n")
        self.trim()

    def trim(self, keep: Path | None = None) -> list[Entry]:
        """Drop the entries unused for longest until the limit holds; ``keep`` stays whatever its size."""
        limit = self.limit
        if not limit:
            return []
        entries = sorted(self.entries(), key=lambda entry: _used(entry.path))
        total, dropped = sum(entry.size for entry in entries), []
        for entry in entries:
            if total <= limit:
                break
            if entry.path != keep and discard(entry.path):
                total -= entry.size
                dropped.append(entry)
        return dropped

    # inside

    def _drop_damaged(self, path: Path, why: str) -> None:
        self._note(f"cache entry {path} is damaged ({why}); it is made anew")
        with contextlib.suppress(OSError):
            discard(path)

    def _kinds(self) -> list[str]:
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if path.is_dir() and path.name not in (LOCKS, WORK))

    def _directories(self, hidden: bool = False) -> list[Path]:
        folders = [self.root / kind for kind in self._kinds()]
        paths = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_dir()]
        return [path for path in paths if hidden or not path.name.startswith(".")]


@contextlib.contextmanager
def locked(root: Path, name: str) -> Iterator[None]:
    """Hold the lock ``name`` below ``root``; it goes with the process, however that ends."""
    folder = root / LOCKS
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / name, "wb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def publish(work: Path, path: Path) -> None:
    """Rename a finished directory into its place; an older one there goes first, in one step."""
    os.chmod(work, 0o755)
    discard(path)
    os.rename(work, path)


def discard(path: Path) -> bool:
    """Take a directory away in one step, so that no reader sees half of it, then delete it. False: there was none."""
    grave = path.parent / f".old-{path.name}-{os.getpid()}-{time.monotonic_ns()}"
    try:
        os.rename(path, grave)
    except FileNotFoundError:
        return False
    shutil.rmtree(grave, ignore_errors=True)
    return True


def sweep(path: Path) -> None:
    """Delete what makers of ``path`` left when they were killed; the caller holds its lock, so none is alive."""
    for prefix in (f".tmp-{path.name}-", f".old-{path.name}-"):
        for left in path.parent.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)


def parse_size(text: str) -> int:
    """``500M``, ``2G``, ``0`` (no limit) or plain bytes; powers of 1024."""
    match = re.fullmatch(r"(\d+)\s*([KMGT]?)(i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise UsageError(f"{text!r} is not a size", hint="write 500M or 2G; 0 is no limit")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match[2].upper()]


def _write_manifest(work: Path, kind: str, key: str, facts: Mapping[str, Any]) -> None:
    files = {}
    for path in sorted(path for path in work.rglob("*") if path.is_file()):
        status = path.stat()
        files[path.relative_to(work).as_posix()] = [status.st_size, status.st_mtime_ns, _crc_of(path)]
    body = json.dumps(
        {"kind": kind, "key": key, "kobox": __version__, "created": time.time(), "files": files, "facts": facts},
        separators=(",", ":"),
    )
    (work / MANIFEST).write_text(f"{MAGIC} {zlib.crc32(body.encode()):08x}\n{body}\n")


def _read_manifest(path: Path, kind: str, key: str) -> tuple[Entry, dict[str, list[int]]]:
    text = (path / MANIFEST).read_bytes()
    head, _, body = text.partition(b"\n")
    body = body.removesuffix(b"\n")
    if head != f"{MAGIC} {zlib.crc32(body):08x}".encode():
        raise BadFile(str(path / MANIFEST), "", "checksum differs")
    stored = json.loads(body)
    if (stored["kind"], stored["key"]) != (kind, key):
        raise BadFile(
            str(path / MANIFEST), "", "belongs elsewhere", f"{stored['kind']}/{stored['key']}", f"{kind}/{key}"
        )
    size = sum(_blocks(path / name) for name in stored["files"])
    return Entry(kind, key, path, stored["facts"], size, stored["created"]), stored["files"]


def _check_files(path: Path, files: Mapping[str, list[int]], *, full: bool) -> None:
    for name, (size, mtime_ns, crc) in files.items():
        file = path / name
        try:
            status = os.stat(file)
        except FileNotFoundError:
            raise BadFile(str(file), "", "is missing") from None
        if status.st_size != size:
            raise BadFile(str(file), "", "size", status.st_size, size)
        if (full or status.st_mtime_ns != mtime_ns) and _crc_of(file) != crc:
            raise BadFile(str(file), "", "content differs from its checksum")


def _damage(path: Path) -> str | None:
    if path.name.startswith("."):
        return "left by a process that was killed"
    try:
        _check_files(path, _read_manifest(path, path.parent.name, path.name)[1], full=True)
    except BadFile as error:
        return str(error)
    except FileNotFoundError:
        return "no manifest"
    return None


def _crc_of(path: Path) -> int:
    crc = 0
    with open(path, "rb") as handle:
        while chunk := handle.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


def _blocks(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def _used(path: Path) -> float:
    try:
        return (path / MANIFEST).stat().st_mtime
    except OSError:
        return 0.0
