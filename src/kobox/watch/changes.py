"""Which files changed, from inotify through watchfiles, or by polling where inotify cannot serve.

An editor that writes a new file and renames it over the old one, a checkout that touches many, a folder that appears:
all arrive as one set of paths once it has been quiet for a moment.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from watchfiles import watch

from kobox.errors import UsageError

QUIET_MS, LONGEST_MS = 20, 500
"""A set is complete when nothing came for this long, or after this long in any case."""
_POLL_MS = 300


class Changes:
    """Collects in a thread what changes below ``paths``; ``take`` gives it and forgets it. ``fileno`` is readable while
    there is something to take. ``wanted`` filters paths; ``note`` hears when polling must serve."""

    def __init__(
        self,
        paths: Sequence[Path],
        wanted: Callable[[Path], bool],
        note: Callable[[str], None] = lambda text: None,
        polling: bool = False,
    ) -> None:
        for path in paths:
            if not path.exists():
                raise UsageError(f"{path}: no such file or directory to watch")
        self._paths, self._wanted, self._note, self._polling = [str(path) for path in paths], wanted, note, polling
        self._pending: set[Path] = set()
        self._error: Exception | None = None
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._readable, self._bell = os.pipe()
        self._thread = threading.Thread(target=self._run, name="kobox-watch", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        return self._readable

    def take(self) -> frozenset[Path]:
        """What changed since the last call; raises what ended the watching."""
        with self._lock:
            if self._error is not None:
                raise self._error
            if self._pending:
                os.read(self._readable, 1)
            taken, self._pending = frozenset(self._pending), set()
        return taken

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        os.close(self._readable)
        os.close(self._bell)

    def _run(self) -> None:
        try:
            if not self._polling:
                try:
                    self._hear()
                    return
                except OSError as error:  # no watches left for this user, or a file system without them
                    why = error.strerror or str(error)
                    self._note(f"no change notices here ({why}): looking every {_POLL_MS} ms instead")
            self._look()
        except OSError as error:
            self._fail(error)

    def _hear(self) -> None:
        found = watch(
            *self._paths, watch_filter=None, debounce=LONGEST_MS, step=QUIET_MS, stop_event=self._stop,
            force_polling=False, ignore_permission_denied=True,
        )  # fmt: skip
        for changes in found:
            self._add({Path(path) for _, path in changes})

    def _look(self) -> None:
        """Compare sizes and time stamps (ns) now and then; what is still being written waits for the next look."""
        seen = told = self._stamps()
        while not self._stop.wait(_POLL_MS / 1000):
            now = self._stamps()
            if now == seen != told:
                self._add({Path(path) for path in now.keys() | told.keys() if now.get(path) != told.get(path)})
                told = now
            seen = now

    def _stamps(self) -> dict[str, tuple[int, int, int]]:
        stamps = {}
        for path in self._paths:
            files = [path] if os.path.isfile(path) else _files_below(path)
            for file in files:
                with contextlib.suppress(OSError):
                    status = os.stat(file)
                    stamps[file] = (status.st_size, status.st_mtime_ns, status.st_ino)
        return stamps

    def _add(self, paths: set[Path]) -> None:
        wanted = {path for path in paths if self._wanted(path)}
        with self._lock:
            if wanted and not self._pending:
                os.write(self._bell, b"x")
            self._pending |= wanted

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self._error = error
            if not self._pending:
                os.write(self._bell, b"x")


def _files_below(folder: str) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(place, name) for name in files)
