"""The kernel's BER: what is taken, what is refused, what an action is told."""

from __future__ import annotations

import errno

import pytest

from kobox.errors import Errno
from kobox.sign import asn1
from signing import der


class Noting:
    def __init__(self) -> None:
        self.seen: list[tuple[str, asn1.Value]] = []

    def __getattr__(self, name: str) -> object:
        return lambda value: self.seen.append((name, value))


INTEGERS = asn1.sequence_of(asn1.leaf(asn1.INTEGER, "integer"), action="end")
ONE = der(0x02, b"\1")


def walk(rule: asn1.Rule, data: bytes) -> list[tuple[str, asn1.Value]]:
    noting = Noting()
    asn1.decode(rule, noting, data)
    return noting.seen


def refusal(rule: asn1.Rule, data: bytes) -> int:
    with pytest.raises(Errno) as caught:
        asn1.decode(rule, Noting(), data)
    return caught.value.number


def test_an_action_is_told_tag_header_start_and_length() -> None:
    assert walk(INTEGERS, der(0x30, ONE, der(0x02, b"\1\2"))) == [
        ("integer", asn1.Value(2, 2, 4, 1)),
        ("integer", asn1.Value(2, 2, 7, 2)),
        ("end", asn1.Value(0, 2, 2, 7)),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        der(0x30),
        der(0x31, ONE),
        der(0x30, ONE)[:-1],
        b"\x30\x83\x00\x00\x03" + ONE,
        b"\x30\x04" + ONE + b"\0",
        der(0x30, b"\x22\x01\x01"),
        der(0x30, b"\x1f\x02\x01"),
        der(0x30, b"\x02\x80\x00\x00"),
        b"\x30\x80" + ONE,
        b"\x30\x80" + ONE + b"\0\1",
    ],
    ids=[
        "nothing",
        "a tag alone",
        "an empty SEQUENCE OF",
        "another tag",
        "cut short",
        "three octets of length",
        "a byte too many inside",
        "a constructed INTEGER",
        "a tag of several octets",
        "a primitive of indefinite length",
        "no end of contents",
        "an end of contents with a length",
    ],
)
def test_what_the_kernel_refuses_is_ebadmsg(data: bytes) -> None:
    assert refusal(INTEGERS, data) == errno.EBADMSG


@pytest.mark.parametrize(
    "data",
    [
        der(0x30, ONE) + b"whatever follows",
        b"\x30\x81\x03" + ONE,
        b"\x30\x82\x00\x03" + ONE,
        b"\x30\x80" + ONE + b"\0\0",
        b"\x10\x03" + ONE,
    ],
    ids=["bytes after it", "length not minimal", "two octets of length", "indefinite", "SEQUENCE without its bit"],
)
def test_what_other_decoders_refuse_and_the_kernel_takes(data: bytes) -> None:
    assert [name for name, _ in walk(INTEGERS, data)] == ["integer", "end"]


def test_more_than_64_kib_is_emsgsize() -> None:
    assert refusal(INTEGERS, bytes(0x10000)) == errno.EMSGSIZE


def test_nesting_ends_at_ten() -> None:
    def nested(depth: int) -> tuple[asn1.Rule, bytes]:
        rule, data = asn1.leaf(asn1.INTEGER, "integer"), ONE
        for _ in range(depth):
            rule, data = asn1.sequence(rule), der(0x30, data)
        return rule, data

    assert len(walk(*nested(10))) == 1
    assert refusal(*nested(11)) == errno.EBADMSG


def test_an_optional_value_is_told_by_its_tag() -> None:
    rule = asn1.sequence(asn1.optional(asn1.leaf(asn1.BOOLEAN, "flag")), asn1.leaf(asn1.INTEGER, "integer"))
    assert [name for name, _ in walk(rule, der(0x30, ONE))] == ["integer"]
    assert [name for name, _ in walk(rule, der(0x30, der(1, b"\1"), ONE))] == ["flag", "integer"]
    assert refusal(rule, der(0x30, der(1, b"\1"))) == errno.EBADMSG


def test_a_sequence_may_end_before_a_choice_that_closes_it() -> None:
    rule = asn1.sequence(asn1.leaf(asn1.INTEGER), asn1.choice(asn1.leaf(asn1.BOOLEAN, "flag"), asn1.leaf(4)))
    assert walk(rule, der(0x30, ONE)) == []
    assert refusal(rule, der(0x30, ONE, ONE)) == errno.EBADMSG


def test_an_implicit_tag_replaces_and_an_explicit_one_wraps() -> None:
    implicit = asn1.implicit(1, asn1.leaf(asn1.INTEGER, "integer"))
    explicit = asn1.explicit(1, asn1.leaf(asn1.INTEGER, "integer"))
    assert walk(implicit, der(0x81, b"\1")) == [("integer", asn1.Value(0x81, 2, 2, 1))]
    assert walk(explicit, der(0xA1, ONE)) == [("integer", asn1.Value(2, 2, 4, 1))]
    assert refusal(implicit, der(0xA1, ONE)) == errno.EBADMSG


def test_a_named_rule_tells_once_more_and_an_optional_one_only_when_found() -> None:
    named = asn1.named(asn1.leaf(asn1.INTEGER, "inner"), "outer")
    rule = asn1.sequence(asn1.optional(named), asn1.leaf(asn1.BOOLEAN))
    flag = der(1, b"\1")
    assert [name for name, _ in walk(asn1.sequence(named), der(0x30, ONE))] == ["inner", "outer"]
    assert walk(rule, der(0x30, flag)) == []


def test_a_value_of_indefinite_length_that_is_not_looked_into_ends_at_its_own_end() -> None:
    rule = asn1.sequence(asn1.anything("any"), asn1.leaf(asn1.INTEGER, "integer"))
    inner = b"\xa0\x80" + b"\x30\x80" + ONE + b"\0\0" + b"\x04\x81\x01x" + b"\0\0"
    (_, any_value), (name, _) = walk(rule, der(0x30, inner, ONE))
    assert any_value.length == len(inner) - 2
    assert name == "integer"
    for broken in (inner[:-1], inner[:-2] + b"\0\1", b"\xa0\x80\x02\x80\0\0\0\0", b"\xa0\x80\x04\x88" + bytes(8)):
        assert refusal(rule, der(0x30, broken, ONE)) == errno.EBADMSG
