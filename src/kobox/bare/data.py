"""The data file of the bare kernel: release, symbol versions and structure layouts of the kernel it was made from."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kobox.image import Btf

_NAME = "bare-6.1"


class BareData:
    """What takes an image's place: ``release``, ``vermagic``, ``config``, ``exports`` (name to CRC, GPL, namespace)."""

    def __init__(self) -> None:
        self._folder = Path(__file__).parents[1] / "kapi" / "data"
        raw: dict[str, Any] = json.loads(self._folder.joinpath(f"{_NAME}.json").read_text(encoding="utf-8"))
        self.release: str = raw["release"]
        self.vermagic: str = raw["vermagic"]
        self.config: dict[str, str] = raw["config"]
        self.exports: dict[str, list[Any]] = raw["exports"]
        self.banner: str = raw["made_from"]["banner"]

    @cached_property
    def btf(self) -> Btf:
        from kobox.image.btf import Btf

        return Btf(self._folder.joinpath(f"{_NAME}.btf.bin").read_bytes())
