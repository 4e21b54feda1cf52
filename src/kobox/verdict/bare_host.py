"""The bare kernel as something to hold a module against: what it has is asked of the kernel itself."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from typing import cast

from kobox import sign
from kobox.bare.data import BareData
from kobox.bare.kernel import BareKernel
from kobox.errors import BadFile
from kobox.image import Config, Export, Image
from kobox.ko import split_signature
from kobox.link import Rules
from kobox.link.rules import default_rules
from kobox.verdict.host import Host, Policy
from kobox.verdict.targets import BARE


class _Exports(Mapping[str, Export]):
    """The functions that the bare kernel has, of those that its data file knows."""

    def __init__(self, data: BareData, kernel: BareKernel) -> None:
        self._data, self._kernel = data, kernel

    def __getitem__(self, name: str) -> Export:
        crc, gpl, *space = self._data.exports[name]
        address = self._kernel.guest.symbols.get(name)
        if address is None:
            raise KeyError(name)
        return Export(name, address, crc, bool(gpl), space[0] if space else "")

    def __iter__(self) -> Iterator[str]:
        return iter(self._data.exports)

    def __len__(self) -> int:
        return len(self._data.exports)


class _NoSymbols(dict[str, int]):
    """Nothing is there that is not exported."""

    def all(self, name: str) -> tuple[int, ...]:
        return ()


class _BareImage:
    """As much of an ``Image`` as a verdict asks for."""

    modules = None

    def __init__(self) -> None:
        data = BareData()
        self.release, self.vermagic = data.release, data.vermagic
        self.config = Config("\n".join(f"{name}={value}" for name, value in data.config.items()).encode())
        self.btf = data.btf
        self.exports = _Exports(data, BareKernel("insmod"))
        self.symbols = _NoSymbols()

    def read(self, address: int, size: int) -> bytes:
        raise BadFile("the bare kernel", f"{address:#x}", "has no memory before it runs")


class BareHost(Host):
    """Trusts no key and demands none; nothing of it is in /sys/module."""

    is_whole = False

    def __init__(self) -> None:
        image = cast(Image, _BareImage())  # the bare kernel has no file to map
        super().__init__(image, BARE, Policy(spectre_v2=False))

    @property
    def rules(self) -> Rules:
        return default_rules()

    @property
    def objects(self) -> frozenset[str]:
        return frozenset()

    def check_signature(self, data: bytes, flags: int, comm: str) -> sign.Check:
        body, _ = split_signature(data)
        verdict = sign.Verdict(errno.ENODATA, "the bare kernel knows no keys", len(body))
        return sign.Check(False, 0, (), verdict)
