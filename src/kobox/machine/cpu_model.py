"""The CPU as the guest sees it: CPUID leaves and model-specific registers, read from a data file per model."""

from __future__ import annotations

import json
from importlib import resources
from typing import NamedTuple

from kobox.errors import UsageError

DEFAULT = "qemu64"


class Board(NamedTuple):
    """What the firmware says of the machine that such a CPU sits in."""

    vendor: str
    product: str
    bios_vendor: str
    bios_version: str
    bios_date: str


class CpuModel(NamedTuple):
    """``leaves``: CPUID leaf -> (eax, ebx, ecx, edx). ``msrs``: values at power-on. ``kept``: ranges that keep
    writes."""

    name: str
    board: Board
    tsc_khz: int
    leaves: dict[int, tuple[int, int, int, int]]
    msrs: dict[int, int]
    kept: tuple[range, ...]

    def keeps(self, msr: int) -> bool:
        """Whether a written value is there when read again; others read as zero, as on the machine it models."""
        return any(msr in numbers for numbers in self.kept)


def known_models() -> list[str]:
    """Names that ``load_model`` takes."""
    folder = resources.files(__package__) / "cpus"
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


def load_model(name: str = DEFAULT) -> CpuModel:
    """Read the data file of one model."""
    try:
        raw = json.loads((resources.files(__package__) / "cpus" / f"{name}.json").read_text())
    except FileNotFoundError:
        raise UsageError(f"no CPU model {name!r}", hint=f"known: {', '.join(known_models())}") from None
    leaves = {int(leaf, 16): tuple(int(value, 16) for value in values) for leaf, values in raw["leaves"].items()}
    return CpuModel(
        name=raw["name"],
        board=Board(**raw["board"]),
        tsc_khz=raw["tsc_khz"],
        leaves=leaves,  # type: ignore[arg-type]  # four values each, as the file is ours
        msrs={int(number, 16): int(value, 16) for number, value in raw["msrs"].items()},
        kept=tuple(_range(text) for text in raw["kept"]),
    )


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first, 16), int(last or first, 16) + 1)
