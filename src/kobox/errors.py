"""What can go wrong, by who must act. Fields first; the text is made from them.

``BadFile``: the file is broken. ``GuestError``: the module misbehaved while it ran. ``NotModelled``: kobox lacks
something. ``UsageError``: the caller asked for what cannot be.
"""

from __future__ import annotations


class KoboxError(Exception):
    """Root of every error that kobox raises on purpose. ``exit_code`` is what a command ends with."""

    exit_code = 1

    def __init__(self, text: str, hint: str | None = None) -> None:
        self.text = text
        self.hint = hint
        super().__init__(text)

    def __str__(self) -> str:
        return f"{self.text}; hint: {self.hint}" if self.hint else self.text


class BadFile(KoboxError):
    """A file's bytes are not what its format says: ``file: place: what: found X, expected Y``."""

    def __init__(
        self,
        file: str,
        place: str,
        what: str,
        found: object = None,
        expected: object = None,
        hint: str | None = None,
    ) -> None:
        self.file, self.place, self.what, self.found, self.expected = file, place, what, found, expected
        text = f"{file}: {place}: {what}" if place else f"{file}: {what}"
        if found is not None:
            text += f": found {_shown(found)}"
        if expected is not None:
            text += f"{',' if found is not None else ':'} expected {_shown(expected)}"
        super().__init__(text, hint)


class GuestError(KoboxError):
    """Code in the guest did what ends a task or the kernel."""


class NotModelled(KoboxError):
    """kobox lacks this, and says so instead of guessing."""

    exit_code = 3


class UsageError(KoboxError):
    """The request itself cannot be."""

    exit_code = 2


class Errno(KoboxError):
    """A kernel-style refusal: ``number`` is positive (22 for EINVAL), ``why`` is for people."""

    def __init__(self, number: int, why: str = "", hint: str | None = None) -> None:
        import errno as _errno

        self.number, self.why = number, why
        self.name = _errno.errorcode.get(number, f"E{number}")
        super().__init__(f"{self.name}: {why}" if why else self.name, hint)


def _shown(value: object) -> str:
    return hex(value) if isinstance(value, int) and not isinstance(value, bool) else str(value)
