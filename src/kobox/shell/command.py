"""What a command of the shell is: a record with its help, and a function from arguments and input to output.

Commands are generators of bytes. They are pulled by whoever stands behind them in the pipe, so ``dmesg -w | grep``
shows lines as they come, and ``cat FILE | head -1`` ends as soon as the line is there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kobox.errors import KoboxError

if TYPE_CHECKING:
    from kobox.shell.kernel import ShellKernel
    from kobox.shell.tree import Tree

Output = Generator[bytes, None, int]
"""What a command gives: its output, and in the end its exit status."""


class Failed(KoboxError):
    """A command cannot go on: its message (the command's name is put in front) and its status."""

    def __init__(self, text: str, status: int = 1, hint: str | None = None) -> None:
        self.exit_code = status
        super().__init__(text, hint)


@dataclass(slots=True)
class Io:
    """What a command works with. ``input`` is None where there is none: no pipe and no ``<``."""

    kernel: ShellKernel
    tree: Tree
    input: Iterator[bytes] | None = None
    input_is_file: bool = False
    """It comes from ``<``."""
    terminal: bool = False
    """Whether its output goes to a terminal."""
    columns: int = 80
    """That terminal's width."""
    complaints: list[bytes] = field(default_factory=list)
    """Messages that have not been written yet."""
    failures: int = 0
    interrupted: Callable[[], bool] = bool
    """Whether the user wants it to end; whoever waits looks at it now and then."""

    def complain(self, text: str) -> None:
        """A message on standard error; the command goes on."""
        self.failures += 1
        self.complaints.append(text.encode("utf-8", "surrogateescape") + b"\n")


@dataclass(frozen=True, slots=True)
class Command:
    """``usage`` is what stands behind the name; ``examples`` are whole lines that work."""

    name: str
    usage: str
    about: str
    run: Callable[[Io, Sequence[str]], Output]
    examples: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    """For completion."""
    completes: str = "paths"
    """What its operands are: ``paths`` (of the kernel's tree), ``files`` (of this host), ``modules`` (that can be
    loaded), ``loaded`` (modules), ``commands``, or nothing."""
    details: str = ""
    """More help, such as a list of options."""

    def help(self) -> str:
        """What ``help NAME`` says."""
        lines = [f"usage: {self.name} {self.usage}".rstrip(), "", self.about]
        if self.details:
            lines += ["", self.details]
        if self.examples:
            lines += ["", "examples:", *(f"  {example}" for example in self.examples)]
        return "\n".join(lines) + "\n"


Table = Mapping[str, Command]


def table(commands: Iterable[Command]) -> dict[str, Command]:
    """Commands by name, in order."""
    return {command.name: command for command in commands}


def lines_of(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Whole lines, each with its newline; the last may have none."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in whole)
    if rest:
        yield rest


def split_options(arguments: Sequence[str], flags: str = "", with_value: str = "") -> tuple[dict[str, str], list[str]]:
    """Options of one letter and operands, as getopt(3) takes them; a flag's value is empty."""
    options: dict[str, str] = {}
    operands: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return options, operands + rest
        if len(word) < 2 or word[0] != "-":
            operands.append(word)
            continue
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in flags:
                options[letter] = ""
            elif letter not in with_value:
                raise Failed(f"no option -{letter}", 2)
            elif not letters and not rest:
                raise Failed(f"-{letter} wants a value", 2)
            else:
                options[letter] = letters or rest.pop(0)
                letters = ""
    return options, operands
