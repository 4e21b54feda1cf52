"""Which files changed, from inotify through watchfiles, or by polling where inotify cannot serve.

An editor that writes a new file and renames it over the old one, a checkout that touches many, a folder that appears:
all arrive as one set of paths once it has been quiet for a moment.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from watchfiles import watch

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
            self._collect(self._polling)
        except OSError as error:  # no watches left for this user, or a file system without them
            if self._polling:
                self._fail(error)
                return
            self._note(f"no change notices here ({error.strerror or error}): looking every {_POLL_MS} ms instead")
            try:
                self._collect(True)
            except OSError as second:
                self._fail(second)

    def _collect(self, polling: bool) -> None:
        found = watch(
            *self._paths, watch_filter=None, debounce=LONGEST_MS, step=QUIET_MS, stop_event=self._stop,
            force_polling=polling or None, poll_delay_ms=_POLL_MS, ignore_permission_denied=True,
        )  # fmt: skip
        for changes in found:
            self._add({Path(path) for _, path in changes})

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
