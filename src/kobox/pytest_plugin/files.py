"""Files of results that a run is asked to write: their folder is made before any test runs, and they appear whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest


def promise(option: str, file: Path) -> Path:
    """The file itself, once its folder is there and can be written to; else wrong usage, before the run."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise pytest.UsageError(f"{option}: {error.filename}: {error.strerror}") from error
    if file.is_dir() or not os.access(file.parent, os.W_OK):
        raise pytest.UsageError(f"{option}: {file}: {'is a directory' if file.is_dir() else 'cannot be written'}")
    return file


def write_whole(option: str, file: Path, text: str) -> None:
    """Write a file that was promised, or leave the old one as it is and end the run with a line that says why."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")
        beside.replace(file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        not_written(option, file, error)


def not_written(option: str, file: Path, error: OSError) -> NoReturn:
    """End the run: its results are not where somebody will look for them."""
    pytest.exit(f"{option}: {file}: {error.strerror}", pytest.ExitCode.INTERNAL_ERROR)
