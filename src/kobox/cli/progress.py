"""A line on stderr that says what takes long, for commands whose work may take seconds."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

_AFTER = 2.0
"""Seconds without an answer before the line appears."""


class Progress:
    """Call it with what is being done now. On a terminal the text appears once two seconds have passed, with the time,
    and is wiped at the end; elsewhere nothing is printed."""

    def __init__(self) -> None:
        self._text, self._start = "", time.monotonic()
        self._shown, self._done, self._lock = False, threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True) if sys.stderr.isatty() else None

    def __call__(self, text: str) -> None:
        self._text = text

    def rest(self) -> None:
        """Nothing goes on until the next text: the line goes, and the two seconds begin anew."""
        with self._lock:
            self._text, self._start = "", time.monotonic()
            self._wipe()

    def __enter__(self) -> Progress:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        self._wipe()

    def _wipe(self) -> None:
        if self._shown:
            self._shown = False
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def _run(self) -> None:
        while not self._done.wait(0.2):
            with self._lock:
                passed = time.monotonic() - self._start
                if passed >= _AFTER and self._text:
                    self._shown = True
                    print(f"\r\033[K{self._text} … {passed:.0f} s", end="", file=sys.stderr, flush=True)
