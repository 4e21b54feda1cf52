"""What a failed expectation of KUnit says, as lib/kunit/assert.c words it. Pure: values in, text out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

INDENT = "    "
_DEEPER = INDENT * 2
_HIGHEST_ERRNO = 4095
_BYTES_A_LINE = 16


class Asserted(NamedTuple):
    """The members of an assertion's structure and of the one that holds its texts, by name. What points to text is
    text, what points to other memory is a number; ``memory`` gives the bytes there."""

    values: Mapping[str, int]
    texts: Mapping[str, str]
    memory: Callable[[int, int], bytes]


def unary(it: Asserted) -> str:
    expected, found = ("true", "false") if it.values["expected_true"] else ("false", "true")
    return f"{INDENT}Expected {it.texts['condition']} to be {expected}, but is {found}\n"


def ptr_not_err(it: Asserted) -> str:
    value = it.values["value"]
    if not value:
        return f"{INDENT}Expected {it.texts['text']} is not null, but is\n"
    number = (1 << 64) - value
    if number <= _HIGHEST_ERRNO:
        return f"{INDENT}Expected {it.texts['text']} is not error, but is: -{number}\n"
    return ""


def _compared(it: Asserted, left: str | None, right: str | None) -> str:
    texts = it.texts
    lines = [f"{INDENT}Expected {texts['left_text']} {texts['operation']} {texts['right_text']}, but"]
    sides = ((texts["left_text"], left), (texts["right_text"], right))
    lines += [f"{_DEEPER}{text} == {shown}" for text, shown in sides if shown is not None]
    # the right side ends without a line break, which is there where only the left one is shown
    return "\n".join(lines) + ("\n" if right is None else "")


def binary(it: Asserted) -> str:
    """A side that is the literal of its value is not repeated."""

    def shown(side: str) -> str | None:
        value = it.values[f"{side}_value"]
        value -= 1 << 64 if value >> 63 else 0
        return None if it.texts[f"{side}_text"] == str(value) else f"{value} ({value & (1 << 64) - 1:#x})"

    return _compared(it, shown("left"), shown("right"))


def binary_ptr(it: Asserted) -> str:
    return _compared(it, f"{it.values['left_value']:016x}", f"{it.values['right_value']:016x}")


def binary_str(it: Asserted) -> str:
    """A side that is the literal of its value is not repeated."""

    def shown(side: str) -> str | None:
        text, value = it.texts[f"{side}_text"], it.texts[f"{side}_value"]
        is_literal = len(text) > 1 and text[0] == text[-1] == '"' and value.startswith(text[1:-1])
        return None if is_literal else f'"{value}"'

    return _compared(it, shown("left"), shown("right"))


def memory(it: Asserted) -> str:
    """Both sides in hex, bytes that differ in angle brackets."""
    for side in ("left", "right"):
        if not it.values[f"{side}_value"]:
            return f"{INDENT}Expected {it.texts[f'{side}_text']} is not null, but is\n"
    left, right = (it.memory(it.values[f"{side}_value"], it.values["size"]) for side in ("left", "right"))
    head = f"{INDENT}Expected {it.texts['left_text']} {it.texts['operation']} {it.texts['right_text']}, but"
    sides = (("left", left, right), ("right", right, left))
    return "\n".join([head, *(f"{_DEEPER}{it.texts[f'{side}_text']} ==\n{_hex(*data)}" for side, *data in sides)])


def _hex(data: bytes, other: bytes) -> str:
    cells = [f"<{one:02x}>" if one != two else f" {one:02x} " for one, two in zip(data, other, strict=True)]
    rows = range(0, len(cells), _BYTES_A_LINE)
    return "\n".join(_DEEPER + "".join(cells[row : row + _BYTES_A_LINE]) for row in rows)


class Wording(NamedTuple):
    """How one kind of assertion is said: its structure, its members that are text, and what makes the text."""

    struct: str
    texts: tuple[str, ...]
    say: Callable[[Asserted], str]


WORDINGS: Mapping[str, Wording] = {
    "kunit_unary_assert_format": Wording("kunit_unary_assert", ("condition",), unary),
    "kunit_ptr_not_err_assert_format": Wording("kunit_ptr_not_err_assert", ("text",), ptr_not_err),
    "kunit_binary_assert_format": Wording("kunit_binary_assert", (), binary),
    "kunit_binary_ptr_assert_format": Wording("kunit_binary_ptr_assert", (), binary_ptr),
    "kunit_binary_str_assert_format": Wording("kunit_binary_str_assert", ("left_value", "right_value"), binary_str),
    "kunit_mem_assert_format": Wording("kunit_mem_assert", (), memory),
}
"""By the name of the kernel's function that words it; ``kunit_fail_assert_format`` adds nothing to the message."""
