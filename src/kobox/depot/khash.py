"""The order in which kmod's hash tables give back their keys: modules.symbols is written in it.

A table has a power of two of buckets; a key's bucket is the low bits of Paul Hsieh's SuperFastHash, and a bucket
keeps its keys sorted by bytes. Nothing of kmod's table is kept here, only the order it leads to.

Hashing thousands of keys one by one is slow in Python, so keys of one length are hashed together: each key is a
64-bit lane of one large integer, whose low 32 bits are that key's running hash (``_hash_lanes``).
"""

from __future__ import annotations

from collections.abc import Iterable

_U32 = 0xFFFFFFFF


def hash_order(keys: Iterable[bytes], buckets: int) -> list[bytes]:
    """The (distinct) keys in the order of a kmod hash table of that many buckets."""
    by_length: dict[int, list[bytes]] = {}
    for key in keys:
        by_length.setdefault(len(key), []).append(key)
    bucket_of: dict[bytes, int] = {}
    for length, group in by_length.items():
        bucket_of.update(zip(group, [value & (buckets - 1) for value in _hash_group(group, length)], strict=True))
    return sorted(sorted(bucket_of), key=bucket_of.__getitem__)


def superfast_hash(key: bytes) -> int:
    """The hash of one key: 32 bits. Bytes of 0x80 and above are signed where C's ``char`` is."""
    value = len(key)
    for at in range(0, len(key) & ~3, 4):
        value += key[at] | key[at + 1] << 8
        mixed = (key[at + 2] | key[at + 3] << 8) << 11 ^ value
        value = (value << 16 ^ mixed) & _U32
        value = value + (value >> 11) & _U32
    tail = key[len(key) & ~3 :]
    if len(tail) == 3:
        value = value + (tail[0] | tail[1] << 8) & _U32
        value ^= value << 16 & _U32
        value ^= _signed(tail[2]) << 18 & _U32
        value = value + (value >> 11) & _U32
    elif len(tail) == 2:
        value = value + (tail[0] | tail[1] << 8) & _U32
        value ^= value << 11 & _U32
        value = value + (value >> 17) & _U32
    elif len(tail) == 1:
        value = value + _signed(tail[0]) & _U32
        value ^= value << 10 & _U32
        value = value + (value >> 1) & _U32
    value ^= value << 3 & _U32
    value = value + (value >> 5) & _U32
    value ^= value << 4 & _U32
    value = value + (value >> 17) & _U32
    value ^= value << 25 & _U32
    return value + (value >> 6) & _U32


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def _hash_group(keys: list[bytes], length: int) -> list[int]:
    joined = b"".join(keys)
    if len(keys) < 8 or not joined.isascii():
        return [superfast_hash(key) for key in keys]
    return _hash_lanes(joined, len(keys), length)


def _hash_lanes(joined: bytes, count: int, length: int) -> list[int]:
    """``superfast_hash`` of many ASCII keys of one length at once. Shifts stay inside a lane: at most 31 bits of
    64."""
    ones = int.from_bytes(b"\1\0\0\0\0\0\0\0" * count, "little")
    low = ones * _U32

    def half(at: int) -> int:
        lanes = bytearray(8 * count)
        lanes[0::8] = joined[at::length]
        lanes[1::8] = joined[at + 1 :: length]
        return int.from_bytes(lanes, "little")

    def byte(at: int) -> int:
        lanes = bytearray(8 * count)
        lanes[0::8] = joined[at::length]
        return int.from_bytes(lanes, "little")

    def add_shifted(value: int, by: int) -> int:
        return value + (value >> by & low) & low

    value = ones * length
    end = length & ~3
    for at in range(0, end, 4):
        value = value + half(at)
        mixed = half(at + 2) << 11 ^ value
        value = (value << 16 ^ mixed) & low
        value = add_shifted(value, 11)
    rest = length & 3
    if rest == 3:
        value = value + half(end) & low
        value ^= value << 16 & low
        value ^= byte(end + 2) << 18
        value = add_shifted(value, 11)
    elif rest == 2:
        value = value + half(end) & low
        value ^= value << 11 & low
        value = add_shifted(value, 17)
    elif rest == 1:
        value = value + byte(end) & low
        value ^= value << 10 & low
        value = add_shifted(value, 1)
    value ^= value << 3 & low
    value = add_shifted(value, 5)
    value ^= value << 4 & low
    value = add_shifted(value, 17)
    value ^= value << 25 & low
    value = add_shifted(value, 6)
    raw = value.to_bytes(8 * count, "little")
    return list(memoryview(raw).cast("I")[0::2])
