"""Saved sessions on disk: which there are, and how one comes there whole or not at all.

A saved session is a folder with ``session.json``, which names the folder beside it that holds the kernel (``data-…``,
``Kernel.save``). A new state is written beside the old one and flushed; then ``session.json`` is replaced in one step.
So whoever is killed in between, or finds the disk full, leaves the state that was there before.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kobox.errors import BadFile, KoboxError, UsageError
from kobox.session.places import check_name

if TYPE_CHECKING:
    from kobox.box import Kernel
    from kobox.session.boot import BootPlan

MANIFEST, _LOCK, _DATA = "session.json", "lock", "data-"
FORMAT = 1


class Saved(NamedTuple):
    """One saved session. ``key`` is what the kernel fits, ``image`` how it was named, ``saved`` seconds since 1970."""

    path: Path
    data: str
    key: str
    kobox: str
    image: str
    release: str
    saved: float
    now: float
    uevents: int
    options: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def kernel(self) -> Path:
        """The folder that ``kobox.box.resume`` takes."""
        return self.path / self.data

    def plan(self) -> BootPlan:
        """What to start so that it goes on."""
        from kobox.session.boot import BootPlan

        return BootPlan.from_data(self.options | {"restore": str(self.path)})

    def as_data(self) -> dict[str, Any]:
        return self._asdict() | {"path": str(self.path), "name": self.name}


def states_folder() -> Path:
    """Where states saved by name lie: ``states`` in kobox's data directory."""
    own = os.environ.get("KOBOX_DATA_DIR")
    if own:
        return Path(own) / "states"
    given = os.environ.get("XDG_DATA_HOME", "")
    return (Path(given) if given.startswith("/") else Path.home() / ".local/share") / "kobox" / "states"


def folder_for(state: str) -> Path:
    """The folder that a name or path means."""
    return Path(os.path.abspath(state)) if "/" in state else states_folder() / check_name(state)


def saved_states() -> list[Saved]:
    """Every state that was saved by name, newest first; damaged ones are left out."""
    found = []
    for path in states_folder().glob(f"*/{MANIFEST}"):
        try:
            found.append(read(path.parent))
        except BadFile:
            continue
    return sorted(found, key=lambda state: -state.saved)


def find(state: str | None) -> Saved:
    """The named state, or the newest."""
    if state is not None:
        return read(folder_for(state))
    states = saved_states()
    if not states:
        raise KoboxError("no session was saved", "kobox save keeps the running one")
    return states[0]


def read(path: Path) -> Saved:
    """What a folder's manifest says."""
    place = path / MANIFEST
    try:
        facts = json.loads(place.read_bytes())
        if facts.get("format") != FORMAT:
            raise BadFile(str(place), "", "format of the saved session", facts.get("format"), FORMAT)
        return Saved(path, **{name: facts[name] for name in Saved._fields[1:]})
    except FileNotFoundError:
        raise KoboxError(f"{path}: no saved session", "kobox restore --list shows what there is") from None
    except (ValueError, KeyError, AttributeError) as error:
        raise BadFile(str(place), "", "is no description of a saved session", hint=f"damaged: {error}") from None


def write(state: str, kernel: Kernel, image: str, uevents: int, options: dict[str, Any]) -> Saved:
    """Save a kernel under a name or path; when this returns, it is on disk to stay."""
    folder = folder_for(state)
    try:
        _prepare(folder)
        with open(folder / _LOCK, "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _write(folder, kernel, image, uevents, options)
    except OSError as error:
        what = f"{folder}: the session was not saved: {error.strerror}"
        raise KoboxError(what, "it goes on; save it to another place with kobox save DIR") from error


def size_of(saved: Saved) -> int:
    """Bytes on disk."""
    return sum(file.stat().st_blocks * 512 for file in saved.kernel.iterdir())


def _prepare(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    others = {entry.name for entry in os.scandir(folder) if not entry.name.startswith(_DATA)} - {MANIFEST, _LOCK}
    if others and not (folder / MANIFEST).exists():
        raise UsageError(f"{folder}: is not empty and no saved session", "name a new folder")


def _write(folder: Path, kernel: Kernel, image: str, uevents: int, options: dict[str, Any]) -> Saved:
    import shutil
    import tempfile

    from kobox import __version__

    work = Path(tempfile.mkdtemp(prefix=_DATA, dir=folder))
    try:
        key = kernel.save(work)
        saved = Saved(
            folder, work.name, key, __version__, image, kernel.release, time.time(), kernel.now, uevents, options
        )
        facts = saved._asdict() | {"format": FORMAT}
        del facts["path"]
        _replace(folder / MANIFEST, json.dumps(facts).encode())
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    for old in folder.glob(f"{_DATA}*"):
        if old != work:
            shutil.rmtree(old, ignore_errors=True)
    return saved


def _replace(path: Path, content: bytes) -> None:
    """The file in one step, and both it and its folder on disk."""
    work = path.with_suffix(".new")
    descriptor = os.open(work, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    os.replace(work, path)
    for folder in (path.parent, path.parent.parent):
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_key(saved: Saved, key: str) -> None:
    """Refuse a state that does not fit the image and the code that are here."""
    image, code = saved.key.rsplit("-", 1)
    own_image, own_code = key.rsplit("-", 1)
    if image != own_image:
        raise KoboxError(
            f"{saved.path}: saved from another image: found {image}, {saved.image} is now {own_image}",
            "the state fits only the very image that it was booted from",
        )
    if code != own_code:
        raise KoboxError(
            f"{saved.path}: saved by another kobox ({saved.kobox}, code {code}), this one has code {own_code}",
            "a state fits only the kobox that saved it; boot anew",
        )
