"""Added images: what is kept of each, and how one is found by release or path.

``DATA/images/RELEASE`` holds a record, the kernel file, its configuration and, when they came in packages, the unpacked
modules below ``root``. That is all that cannot be made again; what is made from it lies in the cache.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kobox.errors import BadFile, UsageError
from kobox.image.cache import Cache, data_root, discard, locked, publish, sweep
from kobox.image.image import KIND, Image, Progress, build_image, cache_key, content_of, open_entry, release_of

RECORD = "image.json"
_IMAGES = "images"
_RELEASE = re.compile(r"\d[A-Za-z0-9._+~-]*")
_KERNEL_NAMES = ("vmlinuz", "vmlinux", "bzImage")
_UNPACK = ".tmp-unpack-"
_MODULES = ("lib/modules", "usr/lib/modules")


def _quiet(text: str) -> None:
    """Progress that nobody watches."""


class Added(NamedTuple):
    """An added image's record. ``kind`` is how it came: ``deb``, ``apt``, ``root`` or ``file``; ``source`` names it;
    ``checked`` says who vouched for the content (empty: nobody). ``root`` is the tree with ``boot`` and ``lib/modules``
    (kobox's own copy for packages), ``modules`` the modules of this release, empty when there are none."""

    release: str
    kind: str
    source: str
    checked: str
    content: str
    kernel: str
    config: str
    root: str
    modules: str
    added: float


class Found(NamedTuple):
    """A kernel file on disk with what lies beside it."""

    kernel: Path
    config: Path | None
    modules: Path | None
    root: Path | None


def list_images(data: Path | None = None) -> tuple[Added, ...]:
    """Every added image, by release."""
    folder = (data or data_root()) / _IMAGES
    if not folder.is_dir():
        return ()
    found = []
    for path in sorted(folder.iterdir()):
        if not path.name.startswith("."):
            with contextlib.suppress(BadFile):
                found.append(_read_record(path))
    return tuple(found)


def find_image(release: str, data: Path | None = None) -> Added | None:
    """The added image of that release."""
    path = (data or data_root()) / _IMAGES / release
    return _read_record(path) if _RELEASE.fullmatch(release) and (path / RECORD).is_file() else None


def open_image(name: str | os.PathLike[str], cache: Cache | None = None, progress: Progress = _quiet) -> Image:
    """An image by release (added ones first, then ``/boot`` of this host), or by path: a kernel file or a root
    directory. Made in the cache first when it is not there yet (seconds); else a millisecond."""
    cache = cache or Cache()
    text = os.fspath(name)
    added = None if os.sep in text else find_image(text)
    if added is not None:
        return _open_added(added, cache, progress)
    found = _found(text)
    data, config = found.kernel.read_bytes(), found.config.read_bytes() if found.config else b""
    return open_entry(build_image(cache, data, config, str(found.kernel), progress), found.modules)


def kernel_file(name: str | os.PathLike[str]) -> Path:
    """The kernel file that ``open_image`` opens under this name."""
    text = os.fspath(name)
    added = None if os.sep in text else find_image(text)
    if added is not None:
        return Path(added.kernel)
    return _found(text).kernel


def _found(text: str) -> Found:
    found = look_for_kernel(Path(text)) if os.sep in text or Path(text).exists() else _host_kernel(text)
    if found is None:
        raise _unknown(text)
    return found


def look_for_kernel(path: Path) -> Found:
    """The kernel at ``path``: the file itself, or the only one in a root (or a ``boot`` directory)."""
    if path.is_dir():
        kernels = kernels_of(path) or _kernels_in(path)
        if not kernels:
            raise UsageError(f"{path}: no kernel in it", hint="it should have boot/vmlinuz-RELEASE")
        if len(kernels) > 1:
            raise UsageError(f"{path}: several kernels: {', '.join(file.name for file in kernels)}", hint="name one")
        return beside(kernels[0], path)
    return beside(path, path.parent.parent if path.parent.name == "boot" else None)


def kernels_of(root: Path) -> list[Path]:
    """Kernel files of a root: those in ``boot``, else those that newer distributions keep beside the modules."""
    modules = [folder for place in _MODULES for folder in sorted((root / place).glob("*"))]
    return _kernels_in(root / "boot") or [file for folder in modules for file in _kernels_in(folder)]


def beside(kernel: Path, root: Path | None) -> Found:
    """A kernel file with the configuration and modules that belong to it."""
    if not kernel.is_file():
        raise UsageError(f"{kernel}: no such file")
    release = release_of(kernel.read_bytes(), str(kernel))
    folders = [root / place / release for place in _MODULES] if root else [kernel.parent]
    modules = next((folder for folder in folders if folder.is_dir() and folder.name == release), None)
    configs = [kernel.parent / f"config-{release}", *(folder / "config" for folder in (modules,) if folder)]
    return Found(kernel, next((file for file in configs if file.is_file()), None), modules, root)


def add_image(
    found: Found,
    *,
    kind: str,
    source: str,
    checked: str = "",
    own: Path | None = None,
    cache: Cache | None = None,
    progress: Progress = _quiet,
) -> tuple[Added, Image]:
    """Register a kernel and make its cache entry. ``own`` is a directory that becomes the store's (an unpacked
    package); else kernel and configuration are copied and the modules stay where they are. Adding a release again
    replaces it."""
    cache = cache or Cache()
    data, config = found.kernel.read_bytes(), found.config.read_bytes() if found.config else b""
    release = release_of(data, str(found.kernel))
    if not _RELEASE.fullmatch(release):
        raise BadFile(str(found.kernel), "banner", "no release", release)
    entry = build_image(cache, data, config, str(found.kernel), progress)
    home = data_root() / _IMAGES / release
    home.parent.mkdir(parents=True, exist_ok=True)
    with locked(data_root(), f"{_IMAGES}-{release}"):
        sweep(home)
        work = Path(tempfile.mkdtemp(prefix=f".tmp-{release}-", dir=home.parent))
        try:
            moved = _move_in(found, release, work, home, own)
            added = Added(release, kind, source, checked, content_of(data, config), *moved, time.time())
            (work / RECORD).write_text(json.dumps(added._asdict(), indent=1) + "\n")
            publish(work, home)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    return added, open_entry(entry, Path(added.modules) if added.modules else None)


def remove_image(release: str, cache: Cache | None = None) -> Added:
    """Forget an added image, with its cache entries; UsageError when there is none."""
    added = find_image(release)
    if added is None:
        raise _unknown(release)
    cache = cache or Cache()
    with locked(data_root(), f"{_IMAGES}-{release}"):
        discard(data_root() / _IMAGES / release)
        discard(headers_home(release))
    key = cache_key(release, added.content)
    for entry in cache.entries():
        if entry.key == key or entry.facts.get("image") == key:
            cache.remove(entry.kind, entry.key)
    return added


def headers_home(release: str, data: Path | None = None) -> Path:
    """The root below which the headers of a release are kept once they were fetched."""
    return (data or data_root()) / "headers" / release


def key_of(added: Added) -> str:
    """Key of the image's cache entry (kind ``image``), whether or not it is there."""
    return cache_key(added.release, added.content)


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """A temporary directory on the store's file system: what is unpacked there can be renamed into place."""
    folder = data_root() / _IMAGES
    folder.mkdir(parents=True, exist_ok=True)
    with locked(data_root(), "unpack"):
        for left in folder.glob(f"{_UNPACK}*"):
            _remove_if_dead(left)
        work = Path(tempfile.mkdtemp(prefix=_UNPACK, dir=folder))
        handle = os.open(work, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(handle, fcntl.LOCK_EX)  # tells those who sweep that somebody works here
    try:
        yield work
    finally:
        os.close(handle)
        shutil.rmtree(work, ignore_errors=True)


def _remove_if_dead(work: Path) -> None:
    """Remove the workspace of a process that was killed; one whose lock is held is alive."""
    with contextlib.suppress(OSError):
        handle = os.open(work, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(work, ignore_errors=True)
        finally:
            os.close(handle)


def _open_added(added: Added, cache: Cache, progress: Progress) -> Image:
    modules = Path(added.modules) if os.path.isdir(added.modules) else None
    entry = cache.entry(KIND, key_of(added))
    if entry is None:
        config = Path(added.config).read_bytes() if added.config else b""
        entry = build_image(cache, Path(added.kernel).read_bytes(), config, added.kernel, progress)
    return open_entry(entry, modules)


def _move_in(found: Found, release: str, work: Path, home: Path, own: Path | None) -> tuple[str, str, str, str]:
    """Put the files below ``work``; the paths they will have below ``home``: kernel, config, root, modules."""
    if own is not None:
        os.rename(own, work / "root")

        def final(path: Path | None) -> str:
            return str(home / "root" / path.relative_to(own)) if path else ""

        return final(found.kernel), final(found.config), str(home / "root"), final(found.modules)
    boot = work / "root" / "boot"
    boot.mkdir(parents=True)
    shutil.copyfile(found.kernel, boot / f"vmlinuz-{release}")
    if found.config:
        shutil.copyfile(found.config, boot / f"config-{release}")
    config = str(home / "root/boot" / f"config-{release}") if found.config else ""
    root = str(found.root.absolute()) if found.root else str(home / "root")
    return (
        str(home / "root/boot" / f"vmlinuz-{release}"),
        config,
        root,
        str(found.modules.absolute()) if found.modules else "",
    )


def _read_record(path: Path) -> Added:
    file = path / RECORD
    try:
        return Added(**json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise BadFile(str(file), "", f"damaged record: {error}", hint="kobox kernel add it again") from error
    except FileNotFoundError:
        raise BadFile(str(file), "", "is missing", hint=f"remove {path}") from None


def _kernels_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.name.startswith(_KERNEL_NAMES) and file.is_file())


def _host_kernel(release: str) -> Found | None:
    kernel = Path("/boot") / f"vmlinuz-{release}"
    if not _RELEASE.fullmatch(release) or not os.access(kernel, os.R_OK):
        return None
    return beside(kernel, Path("/"))


def _unknown(name: str) -> UsageError:
    names = [added.release for added in list_images()]
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        hint = f"did you mean {close[0]!r}?"
    elif names:
        hint = f"added are: {', '.join(names)}"
    else:
        hint = "none is added; 'kobox kernel add --debian' fetches one"
    return UsageError(f"no image {name!r}", hint)
