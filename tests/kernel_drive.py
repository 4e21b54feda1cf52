"""Steps that drive a kernel through its files: played on kobox's kernel, and on a real one as lines of a shell.

An answer is text, the same from both: ``ok`` or the error of a write, the content of a file in hex.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from real_kernel import run_steps

from kobox.box import Kernel
from kobox.errors import Errno

_O_WRONLY, _O_CREAT, _O_TRUNC = 0o1, 0o100, 0o1000
_ERRNO = {os.strerror(number): name for number, name in errno.errorcode.items()}


@dataclass(frozen=True, slots=True)
class Write:
    """One ``write`` of all the data, to a file that is made where it is not there."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Read:
    path: str


@dataclass(frozen=True, slots=True)
class Folder:
    path: str


Step = Write | Read | Folder


def text(answer: str) -> str:
    """What a file held, as text without the line's end."""
    return bytes.fromhex(answer).decode().rstrip("\n")


def play(kernel: Kernel, steps: Sequence[Step]) -> list[str]:
    """The answers of a kernel of kobox's."""
    return [_answer(kernel, step) for step in steps]


def _answer(kernel: Kernel, step: Step) -> str:
    try:
        match step:
            case Write(path, data):
                descriptor = kernel.files.open(path, _O_WRONLY | _O_CREAT | _O_TRUNC)
                try:
                    kernel.files.write_to(descriptor, data)
                finally:
                    kernel.files.close(descriptor)
            case Read(path):
                return kernel.read(path).hex()
            case Folder(path):
                kernel.files.mkdir(path)
    except Errno as refused:
        return errno.errorcode[refused.number]
    return "ok"


def play_on_real_kernel(
    vmlinuz: Path, modules: Mapping[str, bytes], begin: str, steps: Sequence[Step], *,
    files: Mapping[str, bytes] | None = None, seconds: int = 200,
) -> list[str]:  # fmt: skip
    """A real kernel's answers. ``modules`` go below /m, ``files`` where they say; the lines ``begin`` run first."""
    files = {f"/m/{name}.ko": data for name, data in modules.items()} | dict(files or {})
    files |= {f"/data/{at}": step.data for at, step in enumerate(steps) if isinstance(step, Write)}
    lines = [_line(at, step) for at, step in enumerate(steps)]
    said = run_steps(vmlinuz, [begin, "\n".join(lines)], files, seconds=seconds)
    assert len(said) == 2, f"the real kernel stopped: {said}"
    assert said[0].status == 0, said[0]
    return [_parsed(line) for line in said[1].output if line.startswith("=")]


def _line(at: int, step: Step) -> str:
    match step:
        case Write(path, data):
            size = max(len(data), 1)
            return (
                f'echo "=$(dd if=/data/{at} of={path} bs={size} count=1 2>&1 | grep -i -e error -e can.t || echo ok)"'
            )
        case Read(path):
            return f'echo "=$(hexdump -ve \'1/1 "%02x"\' {path} 2>&1)"'
        case Folder(path):
            return f'echo "=$(mkdir -p {path} 2>&1 || true)ok"'


def _parsed(line: str) -> str:
    found = line[1:]
    return next((name for words, name in _ERRNO.items() if found.endswith(words)), found)
