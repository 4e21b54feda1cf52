"""Passwords of enrolment requests: crypt(3)'s ``$6$`` and ``$5$`` hashes, and the record in which mokutil hands one to
MokManager.

Follows Ulrich Drepper's "Unix crypt using SHA-256 and SHA-512" and mokutil's password-crypt.h (``pw_crypt_t``).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from typing import Final, NamedTuple

_ALPHABET: Final = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_DEFAULT_ROUNDS, _LEAST_ROUNDS, _MOST_ROUNDS = 5000, 1000, 999_999_999
_SALT_SIZE: Final = 16
_RECORD: Final = struct.Struct("<HQH32s128s")


class _Method(NamedTuple):
    number: int
    prefix: str
    hash: str
    size: int
    groups: tuple[tuple[int, ...], ...]
    """Which bytes of the digest form each group of base-64 digits, most significant first."""


def _groups(size: int, step: int) -> tuple[tuple[int, ...], ...]:
    """The scheme's shuffle: three bytes that lie a third of the digest apart, turned by one place each time."""
    third, groups = size // 3, []
    first = (0, third, 2 * third)
    for number in range(third):
        turn = number * step % 3
        groups.append(tuple(first[(turn + at) % 3] + number for at in range(3)))
    left = tuple(reversed(range(3 * third, size)))
    return (*groups, left)


_METHODS: Final = (
    _Method(3, "$5$", "sha256", 32, _groups(32, 2)),
    _Method(4, "$6$", "sha512", 64, _groups(64, 1)),
)
_BY_PREFIX: Final = {method.prefix: method for method in _METHODS}
_BY_NUMBER: Final = {method.number: method for method in _METHODS}


class Hash(NamedTuple):
    """A password's hash. ``method`` is mokutil's number, 4 for SHA-512 crypt."""

    method: int
    rounds: int
    salt: bytes
    digest: bytes

    def matches(self, password: str) -> bool:
        found = _BY_NUMBER.get(self.method)
        if found is None:
            return False
        return hmac.compare_digest(_crypt(found, password.encode(), self.salt, self.rounds), self.digest)

    @property
    def text(self) -> str:
        """As in /etc/shadow."""
        method = _BY_NUMBER[self.method]
        rounds = f"rounds={self.rounds}$" if self.rounds != _DEFAULT_ROUNDS else ""
        return f"{method.prefix}{rounds}{self.salt.decode()}${_encode(method, self.digest)}"

    def packed(self) -> bytes:
        """``pw_crypt_t``, the value of MokAuth and its like."""
        return _RECORD.pack(self.method, self.rounds, len(self.salt), self.salt, self.digest)


def hash_password(password: str, salt: bytes | None = None) -> Hash:
    """A SHA-512 hash with a salt of 16 characters, drawn at random where none is given."""
    method = _BY_PREFIX["$6$"]
    if salt is None:
        salt = "".join(secrets.choice(_ALPHABET) for _ in range(_SALT_SIZE)).encode()
    return Hash(method.number, _DEFAULT_ROUNDS, salt, _crypt(method, password.encode(), salt, _DEFAULT_ROUNDS))


def parse_hash(text: str) -> Hash | None:
    """A ``$6$`` or ``$5$`` hash of /etc/shadow or mokutil --generate-hash; None for what is none."""
    method = _BY_PREFIX.get(text[:3])
    if method is None:
        return None
    fields = text[3:].split("$")
    rounds = _DEFAULT_ROUNDS
    if fields[0].startswith("rounds="):
        number = fields.pop(0).removeprefix("rounds=")
        if not number.isdigit():
            return None
        rounds = min(max(int(number), _LEAST_ROUNDS), _MOST_ROUNDS)
    if len(fields) != 2:
        return None
    digest = _decode(method, fields[1])
    return None if digest is None else Hash(method.number, rounds, fields[0][:_SALT_SIZE].encode(), digest)


def unpack(data: bytes) -> Hash | None:
    """The record of a MokAuth; None where it is broken or of a method that is not known here."""
    if len(data) != _RECORD.size:
        return None
    number, rounds, salt_size, salt, digest = _RECORD.unpack(data)
    method = _BY_NUMBER.get(number)
    if method is None or salt_size > len(salt) or rounds > _MOST_ROUNDS:
        return None
    return Hash(number, rounds, salt[:salt_size], digest[: method.size])


def _crypt(method: _Method, password: bytes, salt: bytes, rounds: int) -> bytes:
    new = getattr(hashlib, method.hash)

    def digest(*parts: bytes) -> bytes:
        return bytes(new(b"".join(parts)).digest())

    def stretched(data: bytes, size: int) -> bytes:
        return (data * (size // len(data) + 1))[:size] if size else b""

    other = digest(password, salt, password)
    mixed = password + salt + stretched(other, len(password))
    bits = len(password)
    while bits:
        mixed += other if bits & 1 else password
        bits >>= 1
    found = digest(mixed)
    p = stretched(digest(password * len(password)), len(password))
    s = stretched(digest(salt * (16 + found[0])), len(salt))
    for number in range(rounds):
        found = digest(
            p if number & 1 else found,
            s if number % 3 else b"",
            p if number % 7 else b"",
            found if number & 1 else p,
        )
    return found


def _encode(method: _Method, digest: bytes) -> str:
    text = ""
    for group in method.groups:
        value = int.from_bytes(bytes(digest[at] for at in group), "big")
        for _ in range((len(group) * 8 + 5) // 6):
            text += _ALPHABET[value & 63]
            value >>= 6
    return text


def _decode(method: _Method, text: str) -> bytes | None:
    digest, at = bytearray(method.size), 0
    for group in method.groups:
        size = (len(group) * 8 + 5) // 6
        digits = [_ALPHABET.find(character) for character in text[at : at + size]]
        if len(digits) != size or -1 in digits:
            return None
        value = sum(digit << 6 * place for place, digit in enumerate(digits))
        if value >> 8 * len(group):
            return None
        for place, byte in zip(group, value.to_bytes(len(group), "big"), strict=True):
            digest[place] = byte
        at += size
    return bytes(digest) if at == len(text) else None
