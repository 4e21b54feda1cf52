"""Where members of a C structure lie, whoever knows it: a kernel's BTF, a module's debug data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class MemberPlace(NamedTuple):
    """A member's place in its structure, in bytes."""

    offset: int
    size: int


class StructLayout(NamedTuple):
    """A structure: its size in bytes, and its members by path (``try_catch.context``); those of anonymous members are
    its own."""

    size: int
    members: Mapping[str, MemberPlace]
