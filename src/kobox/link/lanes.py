"""Many numbers in one large integer: a lane of 64 bits for each, so that one operation works on all of them.

Numbers of 32 bits in such lanes leave room for carries; who needs all 64 adds two halves in lanes of their own.
"""

from __future__ import annotations

from functools import cache

LANE = 8
U32 = (1 << 32) - 1


def ones(count: int) -> int:
    """A one in each of ``count`` lanes."""
    exponent = count.bit_length()
    return _ones_for(exponent) >> 64 * ((1 << exponent) - count)


def halves(count: int) -> int:
    """The low 32 bits of each of ``count`` lanes set."""
    single = ones(count)
    return (single << 32) - single


@cache
def _ones_for(exponent: int) -> int:
    return int.from_bytes(b"\1\0\0\0\0\0\0\0" * (1 << exponent), "little")
