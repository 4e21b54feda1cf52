"""Decoding BER the way the kernel decodes it: what it accepts, what it refuses, and in which order it looks.

A grammar is a tree of rules, made with the small functions below. ``decode`` walks bytes along it and calls a method of
the caller's object for each rule that names one. The kernel's decoder (lib/asn1_decoder.c) is the specification, not
X.690, because a signature that this walker and the kernel judge differently is a module that loads in one and not in
the other:

- a length has at most two octets after the first, 64 KiB is the limit of the whole message, nesting ends at ten;
- a rule for a constructed type takes the primitive form of its tag too, a rule for a primitive type takes only that;
- lengths need not be minimal, the indefinite form is taken, bytes after the outermost value are ignored;
- an optional value is recognised by its tag alone, and what follows at the end of the data counts as found when the
  value before it was found: a SEQUENCE may stop before a trailing CHOICE.

What a value means is the business of the caller (``x509``, ``pkcs7``).
"""

from __future__ import annotations

import errno
from enum import Enum, auto
from typing import NamedTuple

from kobox.errors import Errno

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, OBJECT_IDENTIFIER = 0x01, 0x02, 0x03, 0x04, 0x06
IA5_STRING, UTC_TIME, GENERALIZED_TIME = 0x16, 0x17, 0x18
SEQUENCE, SET = 0x30, 0x31
_CONSTRUCTED = 0x20
_CONTEXT = 0x80
_LONG_TAG = 0x1F
_INDEFINITE = 0x80
_MAX_DEPTH = 10
_MAX_SIZE = 0xFFFF


class Kind(Enum):
    LEAF = auto()
    ANY = auto()
    SEQUENCE = auto()
    OF = auto()
    CHOICE = auto()
    NAMED = auto()


class Rule(NamedTuple):
    """One type of a grammar. ``action`` names the method that is told about each value of it."""

    kind: Kind
    tag: int = 0
    parts: tuple[Rule, ...] = ()
    action: str | None = None
    is_optional: bool = False
    shared: bool = False
    """Used in several places of the grammar: the kernel's decoder then notes once more that it was found."""


class Value(NamedTuple):
    """Where a value lies: its tag octet (0 at the end of a constructed one), the size of its header, start and
    length.
    """

    tag: int
    header: int
    start: int
    length: int


def leaf(tag: int, action: str | None = None) -> Rule:
    return Rule(Kind.LEAF, tag, action=action)


def anything(action: str | None = None) -> Rule:
    return Rule(Kind.ANY, action=action)


def sequence(*parts: Rule, action: str | None = None, shared: bool = False) -> Rule:
    return Rule(Kind.SEQUENCE, SEQUENCE, parts, action, shared=shared)


def sequence_of(part: Rule, action: str | None = None) -> Rule:
    return Rule(Kind.OF, SEQUENCE, (part,), action)


def set_of(part: Rule, action: str | None = None) -> Rule:
    return Rule(Kind.OF, SET, (part,), action)


def choice(*parts: Rule, action: str | None = None) -> Rule:
    return Rule(Kind.CHOICE, parts=parts, action=action)


def named(rule: Rule, action: str) -> Rule:
    """``rule``, whose own actions ran already, told once more to ``action`` when it was found."""
    return Rule(Kind.NAMED, parts=(rule,), action=action)


def optional(rule: Rule) -> Rule:
    return rule._replace(is_optional=True)


def explicit(number: int, rule: Rule) -> Rule:
    return Rule(Kind.SEQUENCE, _CONTEXT | _CONSTRUCTED | number, (rule,))


def implicit(number: int, rule: Rule) -> Rule:
    """``rule`` under the context tag ``number`` instead of its own; an ANY keeps taking every tag."""
    if rule.kind is Kind.NAMED:
        return rule._replace(parts=(implicit(number, rule.parts[0]),))
    if rule.kind in (Kind.ANY, Kind.CHOICE):
        return rule
    return rule._replace(tag=_CONTEXT | (rule.tag & _CONSTRUCTED) | number)


def decode(grammar: Rule, actions: object, data: bytes | memoryview) -> None:
    """Walk ``data`` along ``grammar``; raises ``Errno`` (EBADMSG, EMSGSIZE above 64 KiB, or what an action raised)."""
    if len(data) > _MAX_SIZE:
        raise Errno(errno.EMSGSIZE, "ASN.1: more than 65535 bytes")
    _Walk(actions, data).run(grammar, False, False)


def _bad(why: str) -> Errno:
    return Errno(errno.EBADMSG, f"ASN.1: {why}")


class _Walk:
    """The state of one decoding. ``matched`` is what a CHOICE asks; ``last_matched`` what an optional named value
    asks.
    """

    __slots__ = ("actions", "data", "depth", "dp", "end", "last_matched", "matched", "value")

    def __init__(self, actions: object, data: bytes | memoryview) -> None:
        self.actions = actions
        self.data = data
        self.dp = 0
        self.end = len(data)
        self.depth = 0
        self.matched = False
        self.last_matched = False
        self.value = Value(0, 0, 0, 0)

    def run(self, rule: Rule, is_optional: bool, is_alternative: bool) -> None:
        is_optional = is_optional or rule.is_optional
        if rule.kind is Kind.CHOICE:
            for index, part in enumerate(rule.parts):
                self.run(part, True, index > 0)
            if not is_optional and not self.matched:
                raise _bad("unexpected tag")
            self.act(rule)
        elif rule.kind is Kind.NAMED:
            self.run(rule.parts[0], is_optional, is_alternative)
            if not is_optional or self.last_matched:
                self.act(rule)
        else:
            self.match(rule, is_optional, is_alternative)

    def act(self, rule: Rule) -> None:
        if rule.action:
            getattr(self.actions, rule.action)(self.value)

    def match(self, rule: Rule, is_optional: bool, is_alternative: bool) -> None:
        if (is_alternative and self.matched) or (is_optional and self.dp == self.end):
            self.last_matched = False
            return
        self.matched = self.last_matched = False
        if self.end - self.dp < 2:
            raise _bad("data overrun")
        tag = self.data[self.dp]
        if tag & 0x1F == _LONG_TAG:
            raise _bad("long tag not supported")
        self.value = self.value._replace(tag=tag, header=2)
        if rule.kind is not Kind.ANY and (rule.tag ^ tag) & ~(rule.tag & _CONSTRUCTED):
            if is_optional:
                return
            raise _bad(f"tag {tag:#04x} where {rule.tag:#04x} belongs")
        self.dp += 1
        self.matched = True
        header, length = self.length(tag)
        constructed = rule.kind in (Kind.SEQUENCE, Kind.OF)
        if not constructed and length is None:
            length = self.indefinite_length()
        self.value = Value(tag, header, self.dp, length or 0)
        if not constructed:
            self.act(rule)
            self.dp += length or 0
            return
        self.inside(rule, header, length)
        if is_optional or rule.shared:
            self.matched = self.last_matched = True

    def length(self, tag: int) -> tuple[int, int | None]:
        """Take the length octets: size of the header, and the length, None for the indefinite form."""
        first = self.data[self.dp]
        self.dp += 1
        if first == _INDEFINITE:
            if not tag & _CONSTRUCTED:
                raise _bad("primitive value of indefinite length")
            if self.end - self.dp < 2:
                raise _bad("data overrun")
            return 2, None
        octets = first - _INDEFINITE if first > _INDEFINITE else 0
        if octets > 2:
            raise _bad("unsupported length")
        if octets > self.end - self.dp:
            raise _bad("data overrun")
        length = int.from_bytes(self.data[self.dp : self.dp + octets], "big") if octets else first
        self.dp += octets
        if length > self.end - self.dp:
            raise _bad("data overrun")
        return 2 + octets, length

    def inside(self, rule: Rule, header: int, length: int | None) -> None:
        """The parts of a constructed value, then its end; leaves ``value`` at the whole content."""
        if self.depth >= _MAX_DEPTH:
            raise _bad("nested too deeply")
        self.depth += 1
        start, outer_end = self.dp, self.end
        if length is not None:
            self.end = start + length
        while True:
            for part in rule.parts:
                self.run(part, False, False)
            if length is None:
                if self.end - self.dp < 2:
                    raise _bad("data overrun")
                if self.data[self.dp]:
                    if rule.kind is Kind.OF:
                        continue
                    raise _bad("no end of contents")
                if self.data[self.dp + 1]:
                    raise _bad("end of contents with a length")
                length = self.dp - start
                self.dp += 2
            elif rule.kind is Kind.OF and self.dp < self.end:
                continue
            elif self.dp != self.end:
                raise _bad("length of a constructed value")
            break
        self.end = outer_end
        self.depth -= 1
        self.value = Value(self.value.tag, header, start, length)
        if rule.action:
            getattr(self.actions, rule.action)(self.value._replace(tag=0))

    def indefinite_length(self) -> int:
        """Octets to the end of an indefinite value that is not looked into, its end-of-contents octets included."""
        data, dp, level = self.data, self.dp, 1
        while True:
            if self.end - dp < 2:
                raise _bad("data overrun" if self.end != dp else "no end of contents")
            tag = data[dp]
            dp += 1
            if tag == 0:
                if data[dp]:
                    raise _bad("end of contents with a length")
                dp += 1
                level -= 1
                if level == 0:
                    return dp - self.dp
                continue
            if tag & 0x1F == _LONG_TAG:
                more = 0x80
                while more & 0x80:
                    if self.end - dp < 2:
                        raise _bad("data overrun")
                    more = data[dp]
                    dp += 1
            length = data[dp]
            dp += 1
            if length == _INDEFINITE:
                if not tag & _CONSTRUCTED:
                    raise _bad("primitive value of indefinite length")
                level += 1
                continue
            if length > _INDEFINITE:
                octets = length - _INDEFINITE
                if octets > 7:
                    raise _bad("unsupported length")
                if octets > self.end - dp:
                    raise _bad("data overrun")
                length = int.from_bytes(data[dp : dp + octets], "big")
                dp += octets
            if length > self.end - dp:
                raise _bad("data overrun")
            dp += length
