"""What a failed expectation says, in the words of the kernel's own core."""

from __future__ import annotations

from kobox.kernel.kunit_text import WORDINGS, Asserted

COMPARED = {"left_text": "a", "operation": "==", "right_text": "b"}


def say(kind: str, memory: dict[int, bytes] | None = None, texts: dict[str, str] | None = None, **values: int) -> str:
    def read(address: int, size: int) -> bytes:
        return (memory or {})[address][:size]

    return WORDINGS[f"kunit_{kind}_format"].say(Asserted(values, COMPARED | (texts or {}), read))


def test_a_comparison_shows_both_sides() -> None:
    assert say("binary_assert", left_value=5, right_value=(1 << 64) - 1) == (
        "    Expected a == b, but\n        a == 5 (0x5)\n        b == -1 (0xffffffffffffffff)"
    )


def test_a_literal_is_not_repeated() -> None:
    assert say("binary_assert", texts={"right_text": "3"}, left_value=5, right_value=3) == (
        "    Expected a == 3, but\n        a == 5 (0x5)\n"
    )
    assert say("binary_str_assert", texts={"left_text": '"x"', "left_value": "x", "right_value": "y"}) == (
        '    Expected "x" == b, but\n        b == "y"'
    )


def test_pointers_are_whole() -> None:
    assert "        a == 00000000000000ff\n" in say("binary_ptr_assert", left_value=255, right_value=0)


def test_an_error_pointer_is_a_number() -> None:
    assert say("ptr_not_err_assert", texts={"text": "p"}, value=(1 << 64) - 12).endswith("is not error, but is: -12\n")
    assert say("ptr_not_err_assert", texts={"text": "p"}, value=0) == "    Expected p is not null, but is\n"


def test_memory_marks_the_bytes_that_differ() -> None:
    text = say("mem_assert", {16: b"\1\2\3", 32: b"\1\7\3"}, left_value=16, right_value=32, size=3)
    assert text == ("    Expected a == b, but\n        a ==\n         01 <02> 03 \n        b ==\n         01 <07> 03 ")
    assert say("mem_assert", left_value=0, right_value=32, size=3) == "    Expected a is not null, but is\n"
