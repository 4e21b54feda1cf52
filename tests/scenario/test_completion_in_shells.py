"""Completion in bash, zsh and fish themselves, at a terminal: keys go in, and the command line that came of them."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kobox.cli.completion import SHELLS
from needs import need_program
from paths import EXAMPLES

READY = "READY>"
_PATIENCE = 60.0
"""Seconds until a shell that does not answer is a failure."""

START = {
    "bash": ["bash", "--noprofile", "--norc", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
SET_UP = {
    "bash": f"PS1='{READY} '; source <(kobox completion bash)\n",
    "zsh": f"PS1='{READY} '; autoload -Uz compinit; compinit -u -D; source <(kobox completion zsh)\n",
    "fish": f"function fish_prompt; echo '{READY} '; end; kobox completion fish | source\n",
}


class Shell:
    """A shell at a terminal of its own, in which ``kobox`` is a program that notes its arguments."""

    def __init__(self, name: str, folder: Path) -> None:
        self.notes = folder / "notes"
        program = folder / "bin/kobox"
        program.parent.mkdir()
        program.write_text(
            f"#!{sys.executable}\n"
            "import json, sys\n"
            "if sys.argv[1] in ('__complete', 'completion'):\n"
            "    from kobox.cli import main\n"
            "    sys.exit(main())\n"
            f"with open({str(self.notes)!r}, 'a') as file:\n"
            "    print(json.dumps(sys.argv[1:]), file=file)\n"
        )
        program.chmod(0o755)
        work = folder / "work"
        work.mkdir()
        (work / "hello.ko").write_bytes((EXAMPLES / "hello.ko").read_bytes())
        (work / "readme.txt").write_text("no module")
        (work / "folder").mkdir()
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(work)
            environment = dict(
                os.environ, PATH=f"{program.parent}:{os.environ['PATH']}", TERM="xterm", HOME=str(folder)
            )
            os.execvpe(START[name][0], START[name], environment)
        self.type(SET_UP[name])
        self.wait_for(READY, twice=True)

    def type(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def wait_for(self, text: str, twice: bool = False) -> None:
        """Read what the shell shows until the text was there (the first time is our own typing of it)."""
        shown, deadline = "", time.monotonic() + _PATIENCE
        while shown.count(text) < 1 + twice:
            assert time.monotonic() < deadline, f"{text!r} was never shown: {shown!r}"
            if select.select([self.terminal], [], [], 0.2)[0]:
                shown += os.read(self.terminal, 65536).decode(errors="replace")

    def arguments(self, keys: str) -> list[str]:
        """Type the keys and Enter; the arguments that kobox then was started with."""
        before = self.notes.read_text().count("\n") if self.notes.exists() else 0
        self.type(keys + "\r")
        deadline = time.monotonic() + _PATIENCE
        shown = ""
        while time.monotonic() < deadline:
            if select.select([self.terminal], [], [], 0.05)[0]:
                shown += os.read(self.terminal, 65536).decode(errors="replace")
            lines = self.notes.read_text().splitlines() if self.notes.exists() else []
            if len(lines) > before:
                found: list[str] = json.loads(lines[before])
                return found
        raise AssertionError(f"kobox was not started: {shown!r}")

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    need_program(request.param)
    shell = Shell(request.param, tmp_path)
    yield shell
    shell.close()


def test_a_shell_completes_what_kobox_takes(shell: Shell) -> None:
    assert shell.arguments("kobox modp\t--dirn\t/tmp") == ["modprobe", "--dirname", "/tmp"]
    assert shell.arguments("kobox run --loa\tker\tx") == ["run", "--loader", "kernel", "x"]
    assert shell.arguments("kobox run --loader=ker\tx") == ["run", "--loader=kernel", "x"]
    assert shell.arguments("kobox kernel li\t") == ["kernel", "list"]


def test_a_shell_completes_files_and_what_is_in_them(shell: Shell) -> None:
    assert shell.arguments("kobox run h\tmy\t7 lou\t1") == ["run", "hello.ko", "my_param=7", "loud=1"]
    assert shell.arguments("kobox run r\t") == ["run", "r"]  # no module
    assert shell.arguments("kobox run x --root f\t") in (
        ["run", "x", "--root", place] for place in ("folder", "folder/")
    )
