"""The shell's language: text to lists of pipelines. Quoting and operators follow POSIX sh (XCU 2.2, 2.3, 2.10).

Of sh's grammar it has lists (``;``, ``&&``, ``||``, ``!``), pipelines, redirections, assignments and comments; compound
commands, functions, substitutions and background jobs are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from kobox.errors import UsageError


class SyntaxFault(UsageError):
    """The text is not of this language; ``line`` counts from 1."""

    def __init__(self, line: int, text: str, hint: str | None = None) -> None:
        self.line = line
        super().__init__(text, hint)


class Incomplete(SyntaxFault):
    """The text ends in the middle: of quotes, at a backslash, or behind an operator that wants more."""


class Part(NamedTuple):
    """A piece of a word: literal text, or (``variable``) the name of what stands in for it. A quoted piece is neither
    split nor matched against file names."""

    text: str
    quoted: bool = False
    variable: bool = False


Word = tuple[Part, ...]


class Redirection(NamedTuple):
    """``descriptor`` 0 to 2; ``kind``: ``<``, ``>``, ``>>`` or ``>&`` (then the target is another descriptor)."""

    descriptor: int
    kind: str
    target: Word


class Simple(NamedTuple):
    """One command with what stands around it."""

    line: int
    assignments: tuple[tuple[str, Word], ...]
    words: tuple[Word, ...]
    redirections: tuple[Redirection, ...]


class Pipeline(NamedTuple):
    """Commands joined by ``|``. ``after``: run it always (``;``), or as the one before it succeeded (``&&``) or failed
    (``||``). ``negated``: its status is turned round."""

    after: str
    negated: bool
    commands: tuple[Simple, ...]


class _Token(NamedTuple):
    kind: str
    """``word``, ``newline``, ``end``, or the operator itself."""
    line: int
    word: Word = ()
    start: int = 0
    end: int = 0


_OPERATOR = re.compile(r"&&|\|\||;;|>>|>&|<&|<<|&>|[;|<>&()]")
_SPECIAL = frozenset(" \t\n;|<>&()")
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*|[?$#@*!0-9])|\{([A-Za-z_]\w*|\?)\})", re.ASCII)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=", re.ASCII)
_REDIRECTIONS = ("<", ">", ">>", ">&")
_RESERVED = frozenset(
    {"if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac", "{", "}"}
)
_NOT_HERE = {
    "&": "background jobs", "(": "subshells and functions", ")": "subshells and functions", ";;": "case",
    "<<": "here-documents", "<&": "duplicated input", "&>": "both outputs at once (use > FILE 2>&1)",
}  # fmt: skip


def parse(text: str, line: int = 1) -> list[Pipeline]:
    """A whole text; ``line`` is the number of its first line."""
    return _Parser(tokens(text, line)).list()


def tokens(text: str, line: int = 1) -> list[_Token]:
    """The words and operators of a text, the last of kind ``end``."""
    return list(_Lexer(text, line).run())


class _Lexer:
    """One pass over the text."""

    def __init__(self, text: str, line: int) -> None:
        self._text, self._at, self._line = text, 0, line

    def run(self) -> Iterator[_Token]:
        while True:
            self._skip_blanks()
            at, line = self._at, self._line
            char = self._text[at : at + 1]
            if not char:
                yield _Token("end", line, start=at, end=at)
                return
            if char == "\n":
                self._at += 1
                self._line += 1
                yield _Token("newline", line, start=at, end=self._at)
                continue
            operator = _OPERATOR.match(self._text, at)
            if operator is not None:
                self._at = operator.end()
                yield _Token(operator[0], line, start=at, end=self._at)
                continue
            word = tuple(self._word())
            yield _Token("word", line, word, at, self._at)

    def _skip_blanks(self) -> None:
        text = self._text
        while self._at < len(text):
            if text[self._at] in " \t":
                self._at += 1
            elif text.startswith("\\\n", self._at):
                self._at += 2
                self._line += 1
            elif text[self._at] == "#":
                end = text.find("\n", self._at)
                self._at = len(text) if end < 0 else end
            else:
                return

    def _word(self) -> Iterator[Part]:
        text, plain = self._text, ""
        while self._at < len(text) and text[self._at] not in _SPECIAL:
            char = text[self._at]
            if char not in "\\'\"$`":
                plain += char
                self._at += 1
                continue
            if plain:
                yield Part(plain)
                plain = ""
            if char == "\\":
                yield from self._backslash()
            elif char == "'":
                yield self._single_quotes()
            elif char == '"':
                yield from self._double_quotes()
            else:
                yield self._dollar(False)
        if plain:
            yield Part(plain)

    def _backslash(self) -> Iterator[Part]:
        following = self._text[self._at + 1 : self._at + 2]
        if not following:
            raise Incomplete(self._line, "a backslash at the very end")
        self._at += 2
        if following == "\n":
            self._line += 1
        else:
            yield Part(following, quoted=True)

    def _single_quotes(self) -> Part:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise Incomplete(self._line, "a single quote that is not closed")
        inside = self._text[self._at + 1 : end]
        self._line += inside.count("\n")
        self._at = end + 1
        return Part(inside, quoted=True)

    def _double_quotes(self) -> Iterator[Part]:
        text, opened = self._text, self._line
        self._at += 1
        inside = ""
        while True:
            char = text[self._at : self._at + 1]
            if not char:
                raise Incomplete(opened, "a double quote that is not closed")
            if char == '"':
                self._at += 1
                yield Part(inside, quoted=True)
                return
            if char == "\\" and text[self._at + 1 : self._at + 2] in ("$", "`", '"', "\\", "\n"):
                inside += text[self._at + 1].replace("\n", "")
                self._line += text[self._at + 1] == "\n"
                self._at += 2
            elif char in "$`":
                part = self._dollar(True)
                if part.variable:
                    yield Part(inside, quoted=True)
                    yield part
                    inside = ""
                else:
                    inside += part.text
            else:
                self._line += char == "\n"
                inside += char
                self._at += 1

    def _dollar(self, quoted: bool) -> Part:
        """At ``$`` or a backquote: the variable that begins here, or a dollar that is only a dollar."""
        text = self._text
        if text[self._at] == "`" or text.startswith("$(", self._at):
            raise SyntaxFault(self._line, "command substitution is not part of this shell")
        found = _VARIABLE.match(text, self._at)
        if found is not None:
            self._at = found.end()
            return Part(found[1] or found[2], quoted, variable=True)
        if text.startswith("${", self._at):
            raise SyntaxFault(self._line, "of ${…} this shell has ${NAME} only")
        self._at += 1
        return Part("$", quoted)


class _Parser:
    """Tokens to pipelines, by recursive descent."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens, self._at = tokens, 0

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        self._at += 1
        return self._tokens[self._at - 1]

    def list(self) -> list[Pipeline]:
        found: list[Pipeline] = []
        after = ";"
        while True:
            while self._next.kind == "newline":
                self._take()
            if self._next.kind == "end":
                if after != ";":
                    raise Incomplete(self._next.line, f"nothing behind {after}")
                return found
            found.append(self._pipeline(after))
            token = self._take()
            if token.kind == "end":
                return found
            after = ";" if token.kind in (";", "newline") else token.kind
            if after not in (";", "&&", "||"):
                raise self._unexpected(token)

    def _pipeline(self, after: str) -> Pipeline:
        negated = False
        while _plain(self._next) == "!":
            self._take()
            negated = not negated
        commands = [self._simple()]
        while self._next.kind == "|":
            self._take()
            while self._next.kind == "newline":
                self._take()
            if self._next.kind == "end":
                raise Incomplete(self._next.line, "nothing behind |")
            commands.append(self._simple())
        return Pipeline(after, negated, tuple(commands))

    def _simple(self) -> Simple:
        line = self._next.line
        assignments: list[tuple[str, Word]] = []
        words: list[Word] = []
        redirections: list[Redirection] = []
        while True:
            token = self._next
            if token.kind in _REDIRECTIONS:
                redirections.append(self._redirection(None))
            elif token.kind != "word":
                break
            elif self._is_descriptor(token):
                self._take()
                redirections.append(self._redirection(int(token.word[0].text)))
            else:
                self._take()
                if not words and (assignment := _assignment(token.word)) is not None:
                    assignments.append(assignment)
                    continue
                if not words and _plain(token) in _RESERVED:
                    raise SyntaxFault(token.line, f"{_plain(token)!r} is not part of this shell", "&& and || choose")
                words.append(token.word)
        if not words and not assignments and not redirections:
            raise self._unexpected(self._next)
        return Simple(line, tuple(assignments), tuple(words), tuple(redirections))

    def _is_descriptor(self, token: _Token) -> bool:
        """A digit right before a redirection."""
        follower = self._tokens[self._at + 1]
        digit = _plain(token)
        return digit in ("0", "1", "2") and follower.kind in _REDIRECTIONS and follower.start == token.end

    def _redirection(self, descriptor: int | None) -> Redirection:
        operator = self._take()
        target = self._take()
        if target.kind != "word":
            raise self._unexpected(target, f" behind {operator.kind}")
        usual = 0 if operator.kind == "<" else 1
        found = usual if descriptor is None else descriptor
        if (found == 0) != (operator.kind == "<"):
            raise SyntaxFault(operator.line, f"descriptor {found} cannot be redirected with {operator.kind}")
        if operator.kind == ">&" and _plain(target) not in ("1", "2"):
            raise SyntaxFault(operator.line, "behind >& stands 1 or 2")
        return Redirection(found, operator.kind, target.word)

    def _unexpected(self, token: _Token, where: str = "") -> SyntaxFault:
        what = _NOT_HERE.get(token.kind)
        if what is not None:
            return SyntaxFault(token.line, f"{token.kind!r}: {what} are not part of this shell")
        shown = {"newline": "the end of the line", "end": "the end"}.get(token.kind, repr(token.kind))
        if token.kind == "word":
            shown = repr("".join(part.text for part in token.word))
        return SyntaxFault(token.line, f"unexpected {shown}{where}")


def _plain(token: _Token) -> str | None:
    """The text of a word that has no quotes and no variables."""
    if token.kind != "word" or len(token.word) != 1 or token.word[0].quoted or token.word[0].variable:
        return None
    return token.word[0].text


def _assignment(word: Word) -> tuple[str, Word] | None:
    if not word or word[0].quoted or word[0].variable:
        return None
    found = _ASSIGNMENT.match(word[0].text)
    if found is None:
        return None
    rest = word[0].text[found.end() :]
    return found[0][:-1], ((Part(rest),) if rest else ()) + word[1:]
