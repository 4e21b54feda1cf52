"""Debian packages, read without dpkg: the ``ar`` container, its control fields, and the files a kernel is made of.

Only files below ``boot``, the module trees and the header trees are taken out. A name that leaves the target directory,
or that goes through a link the package itself made, is refused. Follows deb(5).
"""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from kobox.errors import BadFile, NotModelled

WANTED = ("boot/", "lib/modules/", "usr/lib/modules/", "usr/src/linux-", "usr/lib/linux-kbuild-")
_MAGIC = b"!<arch>\n"
_HEADER_SIZE = 60


@dataclass(frozen=True, slots=True)
class Deb:
    """A package's name, version and the places of its members in the file (offset, size)."""

    path: Path
    fields: Mapping[str, str]
    members: Mapping[str, tuple[int, int]]

    @property
    def package(self) -> str:
        return self.fields.get("Package", "")

    @property
    def version(self) -> str:
        return self.fields.get("Version", "")


def read_deb(path: Path) -> Deb:
    """Look at a package; BadFile when it is none or cut short."""
    members = _members(path)
    control = next((name for name in members if name.startswith("control.tar")), None)
    if control is None or not any(name.startswith("data.tar") for name in members):
        raise BadFile(str(path), "archive", "no control.tar and data.tar", ", ".join(members) or "nothing")
    text = ""
    with open(path, "rb") as handle, _one_error(path, control):
        for entry, stream in _entries(handle, path, control, members[control]):
            if _plain(entry.name) == "control" and stream is not None:
                text = stream.read().decode("utf-8", "replace")
    return Deb(path, _fields(text), members)


def extract(deb: Deb, root: Path, wanted: tuple[str, ...] = WANTED) -> int:
    """Unpack what a kernel is made of (or what begins with ``wanted``) below ``root``; the number of files."""
    name = next(name for name in deb.members if name.startswith("data.tar"))
    count = 0
    with open(deb.path, "rb") as handle, _one_error(deb.path, name):
        for entry, stream in _entries(handle, deb.path, name, deb.members[name]):
            plain = _plain(entry.name)
            if plain.startswith(wanted):
                count += _place(entry, stream, plain, root, deb.path)
    return count


def _members(path: Path) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    end = path.stat().st_size
    with open(path, "rb") as handle:
        if handle.read(len(_MAGIC)) != _MAGIC:
            raise BadFile(str(path), "archive", "no Debian package", hint="give a .deb, a vmlinuz or a directory")
        while header := handle.read(_HEADER_SIZE):
            if len(header) < _HEADER_SIZE or header[58:] != b"`\n" or not header[48:58].strip().isdigit():
                raise BadFile(str(path), f"archive+0x{handle.tell() - len(header):x}", "damaged member header")
            name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), int(header[48:58])
            if handle.tell() + size > end:
                raise BadFile(str(path), name, "package is cut short", end, handle.tell() + size)
            found[name] = (handle.tell(), size)
            handle.seek(size + size % 2, os.SEEK_CUR)
    return found


def _entries(
    handle: IO[bytes], path: Path, name: str, place: tuple[int, int]
) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """The files of a packed tar member in its order."""
    opener = _OPENERS.get(PurePosixPath(name).suffix)
    if opener is None:
        raise NotModelled(f"{path}: {name}: packing is not known")
    member = cast("IO[bytes]", io.BufferedReader(_Slice(handle, *place), 1 << 20))
    stream = opener(member)
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for entry in archive:
            yield entry, archive.extractfile(entry) if entry.isreg() else None
    while stream.read(1 << 20):  # the checksum stands at the end, behind what tar needs
        pass


@contextlib.contextmanager
def _one_error(path: Path, name: str) -> Iterator[None]:
    """Whatever a damaged stream raises, wherever it is read, as one BadFile."""
    try:
        yield
    except (tarfile.TarError, lzma.LZMAError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise BadFile(str(path), name, f"damaged: {error}", hint="download it again") from error


class _Slice(io.RawIOBase):
    """A member of the archive as a file of its own."""

    def __init__(self, handle: IO[bytes], offset: int, size: int) -> None:
        self._handle, self._left = handle, size
        handle.seek(offset)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # only ever given a memoryview
        data = self._handle.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


def _xz(source: IO[bytes]) -> IO[bytes]:
    return lzma.open(source)


def _gzip(source: IO[bytes]) -> IO[bytes]:
    return gzip.open(source)  # type: ignore[return-value]  # GzipFile reads as a binary file does


class _Zstd(io.RawIOBase):
    """A zstd stream whose errors are ValueErrors, as those of the standard library's packings are."""

    def __init__(self, source: IO[bytes]) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._reader = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # only ever given a memoryview
        try:
            return self._reader.readinto(buffer)
        except self._error as error:
            raise ValueError(str(error)) from error


def _zstd(source: IO[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", io.BufferedReader(_Zstd(source), 1 << 20))


_OPENERS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".xz": _xz,
    ".gz": _gzip,
    ".zst": _zstd,
    ".tar": lambda source: source,
}


def _place(entry: tarfile.TarInfo, stream: IO[bytes] | None, plain: str, root: Path, deb: Path) -> int:
    """Write one entry; 1 for a file or link, 0 for a directory."""
    target = root / plain
    _refuse_escape(entry, plain, root, deb)
    if entry.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink() or target.is_file():
        target.unlink()
    if entry.issym():
        os.symlink(entry.linkname, target)
    elif entry.islnk():
        source = _plain(entry.linkname)
        _refuse_escape(entry, source, root, deb)
        shutil.copyfile(root / source, target, follow_symlinks=False)
    elif stream is not None:
        with open(target, "wb") as handle:
            shutil.copyfileobj(stream, handle, 1 << 20)
        os.chmod(target, 0o755 if entry.mode & 0o100 else 0o644)
    else:
        raise BadFile(str(deb), entry.name, "neither file, directory nor link", entry.type.decode("ascii", "replace"))
    return 1


def _refuse_escape(entry: tarfile.TarInfo, plain: str, root: Path, deb: Path) -> None:
    parts = PurePosixPath(plain).parts
    if ".." in parts or any((root / Path(*parts[:depth])).is_symlink() for depth in range(1, len(parts))):
        raise BadFile(str(deb), entry.name, "leaves the directory it is unpacked in")


def _plain(name: str) -> str:
    """``./boot/x`` and ``/boot/x`` as ``boot/x``."""
    return name.removeprefix(".").lstrip("/")


def _fields(text: str) -> dict[str, str]:
    """The control file's fields; continuation lines are joined."""
    fields: dict[str, str] = {}
    last = ""
    for line in text.splitlines():
        if line[:1] in (" ", "\t"):
            fields[last] = f"{fields.get(last, '')}\n{line.strip()}"
        else:
            last, _, value = line.partition(":")
            fields[last] = value.strip()
    return fields
