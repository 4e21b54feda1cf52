"""The shell of recorded steps: as much of ``sh`` and its programs as cases use, on a kernel that has no processes.

Text programs (``cut``, ``sort``) are this machine's; files are the guest's; ``modprobe`` is kobox's, on the
kernel's root. What else a case asks for is ``Unavailable``, and the case waits.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kobox.box import Kernel
from kobox.cli import modprobe
from kobox.depot.depmod import DepmodOptions, depmod
from kobox.depot.kernel_target import KernelTarget
from kobox.errors import Errno
from kobox.ko import decompress
from tools.golden_files import Unavailable

_WRITE = 0o1 | 0o100 | 0o1000
_TEXT_PROGRAMS = frozenset({"cut", "sort"})
_NAMED = re.compile(r"/lib/modules/[^/ ]+/(kernel/[^ ]+\.ko)")
_MUTUAL = "mutual_"
_SCRIPT = "#!/bin/sh\nexit "
_MOUNT_FAILURE = {15: "Block device required", 19: "No such device"}
"""What musl's ``strerror`` says: the recording's shell is busybox."""


def commands_of(line: str) -> Iterator[list[list[str]]]:
    """A line's commands, each a list of pipeline stages, each a list of words with ``>`` as a word of its own."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|>")
    lexer.whitespace_split = True
    stages: list[list[str]] = [[]]
    for word in lexer:
        if word == ";":
            yield stages
            stages = [[]]
        elif word == "|":
            stages.append([])
        else:
            stages[-1].append(word)
    if stages[0]:
        yield stages


class Shell:
    """One case's shell. ``run`` gives what a line prints, both streams together."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.files = kernel, kernel.files
        self.status = 0
        self._programs: dict[str, Callable[[Sequence[str]], str]] = {
            "echo": lambda words: " ".join(words) + "\n",
            "printf": lambda words: words[0].replace("\\n", "\n"),
            "chmod": lambda words: "",  # everything may be executed here
            "mkdir": self._mkdir,
            "mount": self._mount,
            "modprobe": self._modprobe,
        }

    def run(self, line: str) -> bytes:
        commands = list(commands_of(line))
        for stages in commands:
            for words in stages:
                if words[0] not in self._programs and words[0] not in _TEXT_PROGRAMS:
                    raise Unavailable(f"a shell with {words[0]}")
        return "".join(self._pipeline(stages) for stages in commands).encode()

    def _pipeline(self, stages: list[list[str]]) -> str:
        text = ""
        for stage in stages:
            words = [word.replace("$?", str(self.status)) for word in stage]
            target = words[words.index(">") + 1] if ">" in words else None
            words = words[: words.index(">")] if target else words
            self.status = 0
            text = (
                self._text_program(words, text) if words[0] in _TEXT_PROGRAMS else self._programs[words[0]](words[1:])
            )
            if target:
                self._write(target, text)
                text = ""
        return text

    def _text_program(self, words: list[str], text: str) -> str:
        """``cut`` and ``sort`` of this machine; a file among the words is the guest's."""
        plain = [word for word in words if not word.startswith("/")]
        given = "".join(self.files.read(word).decode("latin-1") for word in words if word.startswith("/"))
        done = subprocess.run(
            plain, input=given or text, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True, check=True
        )
        return done.stdout

    def _write(self, path: str, text: str) -> None:
        with contextlib.suppress(Errno):
            self.files.mkdir("/tmp")
        self.files.write(path, text.encode("latin-1"), _WRITE)
        if text.startswith(_SCRIPT):
            self.kernel.guest.helpers.serve(path, int(text.removeprefix(_SCRIPT)))

    def _mkdir(self, words: Sequence[str]) -> str:
        place = ""
        for part in words[-1].strip("/").split("/"):
            place += f"/{part}"
            with contextlib.suppress(Errno):
                self.files.mkdir(place)
        return ""

    def _mount(self, words: Sequence[str]) -> str:
        _, kind, source, folder = words
        try:
            self.files.mount(source, folder, kind)
        except Errno as error:
            self.status = 255
            why = _MOUNT_FAILURE.get(error.number) or os.strerror(error.number)
            return f"mount: mounting {source} on {folder} failed: {why}\n"
        return ""

    def _modprobe(self, words: Sequence[str]) -> str:
        root = self.kernel.root
        if root is None:
            raise Unavailable("the recorded machine's modules")
        with io.StringIO() as said, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            self.status = modprobe.main(["-S", self.kernel.release, *words], KernelTarget(self.kernel), root)
            return said.getvalue().replace(root, "")


@functools.cache
def recorded_root(recording: Path, modules: Path) -> Path:
    """The recorded machine's root, gone with this process: its initramfs had the recording's own modules, and of the
    distribution's those that the recording names.
    """
    root = Path(tempfile.mkdtemp(prefix="kobox-golden-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    folder = root / "lib/modules" / modules.name
    (folder / "extra").mkdir(parents=True)
    for file in (recording / "ko").glob("*.ko"):
        if not file.name.startswith(_MUTUAL):  # they need each other: depmod refuses a tree with them
            (folder / "extra" / file.name).symlink_to(file.resolve())
    for name in set(_NAMED.findall((recording / "golden.json").read_text(encoding="utf-8"))):
        for file in modules.glob(f"{name}*"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(decompress(file.read_bytes(), file.name))
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        (folder / name).symlink_to(modules / name)
    depmod(DepmodOptions(str(folder), modules.name, config=()))
    return root
