"""Taint flags: numbers to letters to text and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from kobox.abi import taint


def test_bits_are_numbered_as_they_stand():
    assert [flag.bit for flag in taint.FLAGS] == list(range(len(taint.FLAGS)))
    assert "".join(flag.letter for flag in taint.FLAGS) == "PFSRMBUDAWCIOELKXTNJ"


def test_the_text_of_6_1_has_19_columns():
    assert taint.tainted_text(12288) == "Tainted: G           OE     "
    assert taint.tainted_text(1 | 512) == "Tainted: P        W         "


def test_a_newer_kernel_has_a_column_more():
    assert len(taint.columns(0, 20)) == len(taint.columns(0)) + 1


def test_zero_is_not_tainted():
    assert taint.tainted_text(0) == "Not tainted"
    assert taint.decode(0) == ()


def test_the_verbose_text_spells_names():
    assert taint.verbose_text(12288) == "Tainted: [O]=OOT_MODULE, [E]=UNSIGNED_MODULE"


@pytest.mark.parametrize("value", [0, 1, 12288, 46595, (1 << 20) - 1])
def test_texts_read_back_to_their_value(value: int):
    line = f"CPU: 0 PID: 1 Comm: x {taint.tainted_text(value, 20)} 6.12.1-amd64 #1  Debian"
    assert taint.parse_text(line) == value
    if value:
        assert taint.parse_text(taint.verbose_text(value)) == value


def test_a_line_without_a_taint_says_nothing():
    assert taint.parse_text("hello: loading out-of-tree module taints kernel.") is None


def test_letters_may_carry_a_state_mark():
    assert taint.parse_letters("OE+") == 12288


def test_an_unknown_letter_is_refused_by_name():
    with pytest.raises(ValueError, match="'z'"):
        taint.parse_letters("OzE")


def test_bits_that_nobody_defined_are_listed():
    assert taint.unknown_bits(1 << 43 | 1) == (43,)


def test_modules_carry_these_flags():
    assert "".join(flag.letter for flag in taint.FLAGS if flag.module_carried) == "PFCOEKXTNJ"


def test_the_documentation_lists_every_flag_as_the_table_does():
    page = (Path(__file__).parents[3] / "docs/taint.md").read_text()
    for flag in taint.FLAGS:
        assert f"| {flag.bit} | {flag.letter} | {flag.mask} | {flag.set_by} |" in page
