"""Instructions that must not reach Unicorn as they are: they would read the host's clock or bypass kobox's registers,
or it does not have them.

``rdtsc``, ``rdtscp``, ``rdmsr``, ``wrmsr``, ``rdrand``, ``rdseed``, ``rdpmc``; ``stgi``. Candidates are found by their
bytes; whether a candidate is an instruction or the middle of another one is decided by disassembling its function from
the start.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple


class Site(NamedTuple):
    offset: int
    length: int
    kind: str


_PATTERN = re.compile(rb"\x0f[\x30-\x33]|\x0f\x01[\xf9\xdc]|\x0f\xc7[\xf0-\xff]", re.DOTALL)
_KINDS = frozenset({"rdtsc", "rdtscp", "rdmsr", "wrmsr", "rdpmc", "rdrand", "rdseed", "stgi"})


def has_candidates(code: bytes | memoryview) -> bool:
    """Whether it is worth disassembling at all."""
    return _PATTERN.search(code) is not None


def find_sites(code: bytes | memoryview, starts: Sequence[int]) -> list[Site]:
    """Sites in ``code``; ``starts`` are the sorted offsets at which functions begin."""
    candidates: dict[int, list[int]] = {}
    for match in _PATTERN.finditer(code):
        index = bisect_right(starts, match.start()) - 1
        candidates.setdefault(index, []).append(match.start())
    if not candidates:
        return []
    import capstone

    decoder: Any = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)  # type: ignore[no-untyped-call]  # capstone has no types
    decoder.skipdata = True
    found = []
    for index in candidates:
        start = starts[index] if index >= 0 else 0
        end = starts[index + 1] if index + 1 < len(starts) else len(code)
        for address, size, mnemonic, operands in decoder.disasm_lite(bytes(code[start:end]), start):
            if mnemonic in _KINDS:
                found.append(Site(address, size, mnemonic if not operands else f"{mnemonic} {operands}"))
    return found
