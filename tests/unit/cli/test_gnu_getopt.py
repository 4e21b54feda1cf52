"""getopt_long's manners: permutation, clusters, abbreviations, and glibc's words for errors."""

from __future__ import annotations

import pytest

from kobox.cli.gnu_getopt import GetoptError, Long, getopt_long

LONG = {"all": Long("a"), "config": Long("C", True), "force": Long("f"), "force-x": Long("x"), "forced": Long("f")}


def test_options_are_found_among_operands() -> None:
    assert getopt_long(["m", "-a", "x=1", "--config", "f"], "aC:", LONG) == ([("a", ""), ("C", "f")], ["m", "x=1"])


def test_short_options_cluster_and_take_their_value_from_the_rest() -> None:
    assert getopt_long(["-aCfile", "-C", "other"], "aC:", LONG).options == [("a", ""), ("C", "file"), ("C", "other")]


def test_two_dashes_end_the_options() -> None:
    assert getopt_long(["--", "-a", "--all"], "a", LONG).operands == ["-a", "--all"]


def test_a_lone_dash_is_an_operand() -> None:
    assert getopt_long(["-"], "a", LONG).operands == ["-"]


def test_a_plus_ends_options_at_the_first_operand() -> None:
    assert getopt_long(["x", "-a"], "+a", LONG) == ([], ["x", "-a"])


def test_posixly_correct_does_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSIXLY_CORRECT", "1")
    assert getopt_long(["x", "-a"], "a", LONG) == ([], ["x", "-a"])


def test_an_abbreviation_is_enough_if_it_is_clear() -> None:
    assert getopt_long(["--conf=f", "--al"], "", LONG).options == [("C", "f"), ("a", "")]


def test_an_exact_name_is_never_ambiguous() -> None:
    assert getopt_long(["--force"], "", LONG).options == [("f", "")]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--bogus=1"], "unrecognized option '--bogus=1'"),
        (["-z"], "invalid option -- 'z'"),
        (["-C"], "option requires an argument -- 'C'"),
        (["--config"], "option '--config' requires an argument"),
        (["--all=1"], "option '--all' doesn't allow an argument"),
        (["--fo"], "option '--fo' is ambiguous; possibilities: '--force' '--force-x' '--forced'"),
    ],
)
def test_errors_have_glibcs_words(argv: list[str], said: str) -> None:
    with pytest.raises(GetoptError) as raised:
        getopt_long(argv, "aC:", LONG)
    assert str(raised.value) == said
