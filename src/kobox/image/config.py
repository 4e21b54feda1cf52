"""The kernel's build configuration: ``/boot/config-RELEASE``, or the copy in a kernel built with CONFIG_IKCONFIG."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

_START, _END = b"IKCFG_ST", b"IKCFG_ED"


class Config(Mapping[str, str]):
    """Option to value as written: ``y``, ``m``, a number, or text without its quotes. Names come with or without
    ``CONFIG_``; an option that is not set is absent. The text is searched, not parsed."""

    __slots__ = ("_text",)

    def __init__(self, text: bytes) -> None:
        self._text = b"\n" + text + b"\n"

    def __getitem__(self, name: str) -> str:
        key = b"\nCONFIG_" + name.removeprefix("CONFIG_").encode() + b"="
        at = self._text.find(key)
        if at < 0:
            raise KeyError(name)
        return _value(self._text[at + len(key) : self._text.find(b"\n", at + 1)])

    def __iter__(self) -> Iterator[str]:
        for line in self._text.split(b"\n"):
            name, equals, _ = line.partition(b"=")
            if equals and name.startswith(b"CONFIG_"):
                yield name.decode()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def enabled(self, name: str) -> bool:
        """Built in or a module."""
        return self.get(name) in ("y", "m")

    @property
    def text(self) -> bytes:
        return self._text[1:-1]


def embedded_config(flat: bytes) -> bytes | None:
    """The configuration inside the kernel, None when it was not built in."""
    start = flat.find(_START + b"\x1f\x8b")
    end = flat.find(_END, start)
    if start < 0 or end < 0:
        return None
    try:
        return zlib.decompress(flat[start + len(_START) : end], wbits=31)
    except zlib.error:
        return None


def _value(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace").strip()
    return text[1:-1].replace('\\"', '"').replace("\\\\", "\\") if text.startswith('"') and text.endswith('"') else text
