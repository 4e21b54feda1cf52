"""``.modinfo``: ``key=value`` strings, each ended by NUL, any key any number of times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from kobox.elf import ElfFile
from kobox.elf.gate import text


class ModInfo:
    """The pairs of ``.modinfo`` in the file's order. Immutable."""

    __slots__ = ("items",)

    def __init__(self, items: Sequence[tuple[str, str]] = ()) -> None:
        self.items: tuple[tuple[str, str], ...] = tuple(items)

    @overload
    def get(self, key: str) -> str | None: ...
    @overload
    def get(self, key: str, default: str) -> str: ...
    def get(self, key: str, default: str | None = None) -> str | None:
        """The first value of ``key``: the one that counts for the kernel."""
        return next((value for name, value in self.items if name == key), default)

    def get_all(self, key: str) -> tuple[str, ...]:
        """Every value of ``key``, in order."""
        return tuple(value for name, value in self.items if name == key)

    def __contains__(self, key: object) -> bool:
        return any(name == key for name, _ in self.items)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return f"ModInfo({list(self.items)!r})"


def parse_modinfo(raw: bytes) -> ModInfo:
    """``raw`` as pairs. A string without ``=`` is a key with an empty value, as kmod reads it."""
    pairs = []
    for entry in text(raw).split("\0"):
        if entry:
            key, _, value = entry.partition("=")
            pairs.append((key, value))
    return ModInfo(pairs)


def read_modinfo(elf: ElfFile) -> ModInfo:
    """The module's ``.modinfo``, empty without one.

    A last string without NUL goes on into the bytes that follow the section in the file, because that is what the
    kernel's loader sees: it walks C strings and knows the section's size only between them.
    """
    section = elf.alloc_section(".modinfo")
    if section is None or not section.has_bytes:
        return ModInfo()
    raw = bytes(elf.bytes_of(section))
    if raw and raw[-1]:
        following = elf.gate.take(section.offset + section.size, elf.gate.size - section.offset - section.size, "")
        raw += bytes(following).partition(b"\0")[0]
    return parse_modinfo(raw)
