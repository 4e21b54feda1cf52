"""The prompt of ``kobox shell``: readline with completion, history that is kept, Ctrl-C, Ctrl-D."""

from __future__ import annotations

import os
import readline
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kobox.cli import colour
from kobox.cli.shell import INTERRUPTED, heard
from kobox.cli.shell_console import Console
from kobox.errors import KoboxError
from kobox.shell import Completer, Exit, Incomplete

if TYPE_CHECKING:
    from kobox.shell import ModuleNames, Shell

_HISTORY_LINES = 10_000
_SHOWN = 200
"""Candidates that are listed before the rest is only counted."""


class Prompt:
    """One interactive shell. ``run`` returns its exit status."""

    def __init__(self, shell: Shell, modules: ModuleNames, label: str, console: bool, local: bool) -> None:
        self._shell, self._label, self._local = shell, label, local
        self._completer = Completer(shell, modules)
        self._console = Console(shell.kernel, console)
        self._history = history_file()
        self._candidates: list[str] = []
        self._coloured = colour.wanted(sys.stdout)

    def run(self) -> int:
        """Ask until Ctrl-D or ``exit``."""
        self._set_up()
        print(f"kobox: Linux {self._shell.kernel.release}; 'help' lists the commands, Ctrl-D leaves")
        text = ""
        while True:
            try:
                line = input(self._prompt(bool(text)))
                self._remember(line)
                text += line
                with heard(self._shell, self._local):
                    self._shell.run(text)
            except EOFError:
                if not text:
                    print("exit")
                    return self._shell.status
                print("\nkobox shell: the line was not complete", file=sys.stderr)
                self._shell.status = 2
            except Exit as left:
                return left.status
            except KeyboardInterrupt:
                print("^C" if sys.stdout.isatty() and not text else "")
                self._shell.status = INTERRUPTED
            except Incomplete:
                text += "\n"
                continue
            except KoboxError as error:
                print(f"kobox shell: {error}", file=sys.stderr)
                self._shell.status = error.exit_code
            text = ""
            self._console.show()

    def _prompt(self, continued: bool) -> str:
        if continued:
            return "> "
        text = f"{self._label}:{self._shell.tree.folder}"
        if not self._coloured:
            return f"{text}# "
        # readline must not count what takes no room: between \001 and \002
        return f"\001\033[1;32m\002{text}\001\033[0m\002# "

    # -- readline -----------------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        readline.set_completer(self._complete)
        readline.set_completer_delims(" \t\n")
        readline.set_completion_display_matches_hook(self._show_candidates)
        is_libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")
        readline.set_auto_history(False)
        readline.set_history_length(_HISTORY_LINES)
        if self._history is not None and self._history.exists():
            try:
                readline.read_history_file(self._history)
            except OSError as error:
                self._forget(error)

    def _remember(self, line: str) -> None:
        last = readline.get_current_history_length()
        if not line.strip() or line.startswith(" ") or (last and readline.get_history_item(last) == line):
            return
        readline.add_history(line)
        if self._history is None:
            return
        try:
            self._history.touch(0o600)
            readline.append_history_file(1, self._history)
        except OSError as error:
            self._forget(error)

    def _forget(self, error: OSError) -> None:
        print(f"kobox shell: {self._history}: {error.strerror}; the history is not kept", file=sys.stderr)
        self._history = None

    def _complete(self, text: str, state: int) -> str | None:
        """readline's protocol: the candidates one after another, each for the text from ``begidx`` on."""
        if state == 0:
            begin, end = readline.get_begidx(), readline.get_endidx()
            line = readline.get_line_buffer()[:end]
            found = self._completer.complete(line)
            if found.start >= begin:
                self._candidates = [line[begin : found.start] + word for word in found.words]
            else:  # a word with quoted blanks: readline takes its last piece for the word
                self._candidates = [word[begin - found.start :] for word in found.words]
        return self._candidates[state] if state < len(self._candidates) else None

    def _show_candidates(self, substitution: str, matches: Sequence[str], longest: int) -> None:
        """The candidates in columns, without the folder that they have in common; then the line again."""
        cut = substitution.rfind("/") + 1
        names = [match[cut:].rstrip() for match in matches[:_SHOWN]]
        width = max(map(len, names)) + 2
        columns = max(1, os.get_terminal_size(sys.stdout.fileno()).columns // width)
        rows = -(-len(names) // columns)
        print()
        for row in range(rows):
            print("".join(name.ljust(width) for name in names[row::rows]).rstrip())
        if len(matches) > _SHOWN:
            print(f"… and {len(matches) - _SHOWN} more")
        plain = self._prompt(False).replace("\001", "").replace("\002", "")
        print(plain + readline.get_line_buffer(), end="", flush=True)


def history_file() -> Path | None:
    """``$XDG_STATE_HOME/kobox/shell_history``; None where its folder cannot be made."""
    given = os.environ.get("XDG_STATE_HOME", "")
    state = given if given.startswith("/") else os.path.expanduser("~/.local/state")
    folder = Path(state, "kobox")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder / "shell_history"
