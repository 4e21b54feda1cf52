"""Runs the shell's language: expands words, joins commands by pipes, redirects, keeps ``$?``.

A pipeline is a chain of generators that the last one pulls. Output goes to binary streams that the caller gives;
messages name the line of a script.
"""

from __future__ import annotations

import difflib
import inspect
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING

from kobox.errors import Errno, KoboxError
from kobox.shell.command import Command, Failed, Io, Output, Table
from kobox.shell.syntax import Incomplete, Pipeline, Simple, SyntaxFault, Word, parse
from kobox.shell.tree import Tree, escape, has_magic, unescape

if TYPE_CHECKING:
    from kobox.shell.kernel import ShellKernel

NOT_FOUND, USAGE, INTERRUPTED = 127, 2, 130


class Exit(Exception):
    """``exit``: the shell's status."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(status)


class Shell:
    """One shell: a current directory, variables, the last status. ``name`` is what messages of a script begin with; an
    interactive shell has none."""

    def __init__(self, kernel: ShellKernel, commands: Table, out: IO[bytes], err: IO[bytes], name: str = "") -> None:
        self.kernel = kernel
        self.commands: dict[str, Command] = dict(commands)
        self.tree = Tree(kernel)
        self.variables: dict[str, str] = {}
        self.status = 0
        self.stop_on_failure = False
        """``set -e``."""
        self.interrupted = False
        """Set from a signal's handler: the running command is to end."""
        self._out, self._err, self._name = out, err, name
        self._own: dict[str, Callable[[Io, Sequence[str]], Output]] = {
            "cd": self._cd, "pwd": self._pwd, "exit": self._exit, "set": self._set, "unset": self._unset,
        }  # fmt: skip

    @property
    def names(self) -> list[str]:
        """Everything that can be called."""
        return sorted({*self.commands, *self._own})

    def run(self, text: str, line: int = 1, after: Callable[[], None] = lambda: None) -> int:
        """Run a text whose first line has this number; the last status. ``after`` is called after each pipeline.

        Raises ``Exit`` to leave, ``Incomplete`` at a prompt for a text that needs more, ``KeyboardInterrupt`` once the
        command that was running when ``interrupted`` became true has come to rest.
        """
        try:
            pipelines = parse(text, line)
        except SyntaxFault as fault:
            if isinstance(fault, Incomplete) and not self._name:
                raise  # at a prompt the rest may follow
            self.say(fault.line, f"syntax error: {fault}")
            self.status = USAGE
            return self.status
        for number, pipeline in enumerate(pipelines):
            if pipeline.after != ";" and (pipeline.after == "&&") == bool(self.status):
                continue
            self._pipeline(pipeline)
            after()
            follower = pipelines[number + 1].after if number + 1 < len(pipelines) else ";"
            if self.status and self.stop_on_failure and follower == ";" and not pipeline.negated:
                raise Exit(self.status)
        return self.status

    def say(self, line: int, text: str) -> None:
        """A message on standard error."""
        self._err.write(self._prefix(line) + text.encode("utf-8", "surrogateescape") + b"\n")
        self._err.flush()

    def _prefix(self, line: int) -> bytes:
        return f"{self._name}: line {line}: ".encode() if self._name else b""

    # -- pipelines ----------------------------------------------------------------------------------------------------

    def _pipeline(self, pipeline: Pipeline) -> None:
        stages: list[_Stage] = []
        stream: Iterator[bytes] | None = None
        try:
            for number, simple in enumerate(pipeline.commands):
                last = number == len(pipeline.commands) - 1
                stage = self._stage(simple, stream, last)
                stages.append(stage)
                stream = stage.stream
            assert stream is not None
            for chunk in stream:
                self._out.write(chunk)
                self._out.flush()
            for stage in reversed(stages[:-1]):
                stage.end()
            status = stages[-1].status
        finally:
            for stage in stages:
                stage.stream.close()
        self.status = int(not status) if pipeline.negated else status

    def _stage(self, simple: Simple, stream: Iterator[bytes] | None, last: bool) -> _Stage:
        """A command with its words expanded and its files known, not yet begun."""
        words = [field for word in simple.words for field in self._fields(word)]
        variables = {name: self._text(word) for name, word in simple.assignments}
        if not words:
            self.variables |= variables
        io = Io(self.kernel, self.tree, stream, interrupted=lambda: self.interrupted)
        stage = _Stage(self._sinks(simple, io), io, self._err, self._prefix(simple.line))
        if last and stage.to_pipe and self._out.isatty():
            io.terminal, io.columns = True, self._columns()
        stage.stream = stage.run(words[0] if words else "", self._body(words, io))
        return stage

    def _columns(self) -> int:
        """Asked each time: a window may change its size, and ``$COLUMNS`` does not tell."""
        try:
            return os.get_terminal_size(self._out.fileno()).columns
        except OSError:
            return shutil.get_terminal_size().columns

    def _body(self, words: list[str], io: Io) -> Output:
        if not words:
            return _nothing()
        name, *arguments = words
        if name in self._own:
            return self._own[name](io, arguments)
        if name in self.commands:
            return self.commands[name].run(io, arguments)
        return self._unknown(name)

    def _unknown(self, name: str) -> Output:
        close = difflib.get_close_matches(name, self.names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "'help' lists what there is"
        raise Failed("command not found", NOT_FOUND, hint)
        yield b""

    def _sinks(self, simple: Simple, io: Io) -> dict[int, _Sink]:
        sinks: dict[int, _Sink] = {1: _Sink(), 2: _Sink(error=True)}
        for redirection in simple.redirections:
            target = self._text(redirection.target)
            if redirection.kind == "<":
                io.input, io.input_is_file = _content(self.tree, target), True
            elif redirection.kind == ">&":
                sinks[redirection.descriptor] = sinks[int(target)]
            else:
                sinks[redirection.descriptor] = _Sink(self.tree, target, redirection.kind == ">>")
        return sinks

    # -- words --------------------------------------------------------------------------------------------------------

    def _fields(self, word: Word) -> Iterator[str]:
        """A word's fields: variables replaced, split at blanks, matched against the kernel's tree (XCU 2.6)."""
        for pattern in self._patterns(word):
            yield from (has_magic(pattern) and self.tree.glob(pattern)) or [unescape(pattern)]

    def _patterns(self, word: Word) -> Iterator[str]:
        field: str | None = None
        for part in word:
            text = self._value(part.text) if part.variable else part.text
            if part.quoted:
                field = (field or "") + escape(text)
            elif not part.variable:
                field = (field or "") + text
            else:
                text = text.replace("\\", "\\\\")
                pieces = text.split()
                if field is not None and text[:1].isspace():
                    yield field
                    field = None
                for number, piece in enumerate(pieces):
                    if number:
                        assert field is not None
                        yield field
                        field = None
                    field = (field or "") + piece
                if field is not None and pieces and text[-1:].isspace():
                    yield field
                    field = None
        if field is not None:
            yield field

    def _text(self, word: Word) -> str:
        """A word that stays one: what is assigned, or a file's name."""
        return "".join(self._value(part.text) if part.variable else part.text for part in word)

    def _value(self, name: str) -> str:
        special = {"?": str(self.status), "$": str(os.getpid()), "0": self._name or "kobox shell", "#": "0"}
        return special.get(name) or self.variables.get(name) or ""

    # -- commands of the shell itself ---------------------------------------------------------------------------------

    def _cd(self, io: Io, arguments: Sequence[str]) -> Output:
        path = arguments[0] if arguments else "/"
        try:
            self.tree.change(path)
        except Errno as error:
            raise Failed(f"{path}: {os.strerror(error.number)}") from None
        return 0
        yield b""

    def _pwd(self, io: Io, arguments: Sequence[str]) -> Output:
        yield self.tree.folder.encode("utf-8", "surrogateescape") + b"\n"
        return 0

    def _exit(self, io: Io, arguments: Sequence[str]) -> Output:
        if arguments and not arguments[0].isdecimal():
            raise Failed(f"{arguments[0]}: not a number", USAGE)
        raise Exit(int(arguments[0]) & 255 if arguments else self.status)
        yield b""

    def _set(self, io: Io, arguments: Sequence[str]) -> Output:
        if not arguments:
            yield "".join(f"{name}={value}\n" for name, value in sorted(self.variables.items())).encode()
        for word in arguments:
            if word not in ("-e", "+e"):
                raise Failed(f"{word}: of set there are -e and +e", USAGE)
            self.stop_on_failure = word == "-e"
        return 0

    def _unset(self, io: Io, arguments: Sequence[str]) -> Output:
        for name in arguments:
            self.variables.pop(name, None)
        return 0
        yield b""


class _Sink:
    """Where a descriptor of a command leads: on to the pipe (or the shell's own output), or into a file at its end."""

    def __init__(self, tree: Tree | None = None, path: str = "", append: bool = False, error: bool = False) -> None:
        self.tree, self.path, self.append, self.error = tree, path, append, error
        self.held: list[bytes] = []

    def close(self) -> None:
        if self.tree is not None:
            self.tree.write(self.path, b"".join(self.held), self.append)
            self.held.clear()


class _Stage:
    """One command of a pipeline, running."""

    def __init__(self, sinks: Mapping[int, _Sink], io: Io, err: IO[bytes], prefix: bytes) -> None:
        self._sinks, self._io, self._err, self._prefix = sinks, io, err, prefix
        self.status = 0
        self.stream: Output = _nothing()
        self.to_pipe = sinks[1].tree is None and not sinks[1].error

    def run(self, name: str, body: Output) -> Output:
        """What goes down the pipe."""
        while True:
            try:
                chunk = next(body)
            except StopIteration as ended:
                self.status = ended.value or 0
                break
            except KoboxError as error:
                self._failed(name, str(error), error.exit_code)
                break
            except OSError as error:
                where = f"{error.filename}: " if error.filename else ""
                self._failed(name, f"{where}{error.strerror or error}", 1)
                break
            if self._io.interrupted():
                raise KeyboardInterrupt
            yield from self._pass_on(chunk)
        if self._io.interrupted():
            raise KeyboardInterrupt
        yield from self._pass_on(b"")
        for sink in dict.fromkeys(self._sinks.values()):
            try:
                sink.close()
            except (KoboxError, OSError) as error:
                self._failed(sink.path, reason(error), 1)
        yield from self._pass_on(b"")
        return self.status

    def end(self) -> None:
        """Whoever read its output has ended: what never began runs now, up to its first output; the rest is cut."""
        if inspect.getgeneratorstate(self.stream) == inspect.GEN_CREATED:
            next(self.stream, None)
        self.stream.close()

    def _failed(self, name: str, text: str, status: int) -> None:
        self.status = status
        self._io.complain(f"{name}: {text}" if name else text)

    def _pass_on(self, chunk: bytes) -> Iterator[bytes]:
        """Hand out what came, messages first."""
        complaints = [self._prefix + text for text in self._io.complaints]
        self._io.complaints.clear()
        for sink, pieces in ((self._sinks[2], complaints), (self._sinks[1], [chunk] if chunk else [])):
            for piece in pieces:
                if sink.tree is not None:
                    sink.held.append(piece)
                elif sink.error:
                    self._err.write(piece)
                    self._err.flush()
                else:
                    yield piece


def reason(error: KoboxError | OSError) -> str:
    """An error of a file in the C library's words."""
    if isinstance(error, Errno):
        return os.strerror(error.number)
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _content(tree: Tree, path: str) -> Iterator[bytes]:
    try:
        yield tree.read(path)
    except (Errno, OSError) as error:
        raise Failed(f"{path}: {reason(error)}") from None


def _nothing() -> Output:
    return 0
    yield b""
