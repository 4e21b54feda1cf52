"""Module files as a guest's modprobe reads them: unpacked, and the last ones kept, so that a state that is gone back to
again and again does not unpack the same files each time."""

from __future__ import annotations

import os

from kobox.ko import decompress

_KEPT = 48 << 20
"""Unpacked bytes that are kept at most."""


class ModuleFiles:
    """The unpacked files that were read last."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, int, int, int], bytes] = {}
        self._size = 0

    def read(self, path: str) -> bytes:
        """The bytes of a module, unpacked; ``OSError``, ``BadFile``. A file that has changed is read anew."""
        with open(path, "rb") as file:
            facts = os.fstat(file.fileno())
            key = path, facts.st_ino, facts.st_size, facts.st_mtime_ns
            data = self._files.pop(key, None)
            if data is None:
                packed = file.read()
                data = bytes(decompress(packed, path))
                if len(data) == len(packed) or len(data) > _KEPT:
                    return data  # the page cache holds what is not packed
                self._size += len(data)
        self._files[key] = data
        while self._size > _KEPT:
            self._size -= len(self._files.pop(next(iter(self._files))))
        return data
