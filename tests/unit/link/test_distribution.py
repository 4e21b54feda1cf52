"""Every module of a distribution links against its kernel and its other modules."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kobox.ko import decompress, split_signature
from kobox.link.layout import INIT_REGIONS
from kobox.link.linked import LinkedModule, TreeReport, depends, link_tree, mapped
from kobox.link.policy import Export, Exports
from kobox.link.rules import Rules, default_rules
from kobox.link.validity import load_view

if TYPE_CHECKING:
    from kobox.image import Image

pytestmark = pytest.mark.image
Modules = dict[str, partial[memoryview | bytes]]


def kernel_of(image: Image) -> Exports:
    exports = image.exports
    table = {name: Export(name, e.address, e.gpl, e.namespace or "", e.crc) for name, e in exports.items()}
    return Exports("kernel", table)


def rules_of(image: Image) -> Rules:
    """The rules of a kernel from its own BTF."""
    btf, sizes = image.btf, dict(default_rules().sizes)
    for name in sizes:
        found = btf.find_struct(name)
        if found is not None:
            sizes[name] = found.size
    return Rules.of(
        sizes,
        {f"CONFIG_{name.removeprefix('CONFIG_')}": value for name, value in image.config.items()},
        memories=btf.find_struct("module_memory") is not None,
        name_offset=btf.struct("module").member("name").offset,
        orc_terminator_mask=default_rules().orc_terminator_mask,
    )


def bytes_of(path: Path) -> memoryview | bytes:
    data = mapped(path)
    return split_signature(data if path.suffix == ".ko" else decompress(bytes(data), path.name))[0]


def modules_of(root: Path, release: str) -> Modules:
    paths = sorted((root / "lib/modules" / release / "kernel").rglob("*.ko*"))
    return {path.name.partition(".ko")[0].replace("-", "_"): partial(bytes_of, path) for path in paths}


def with_dependencies(every: Modules, names: list[str]) -> Modules:
    """The modules ``names`` and all that those need."""
    wanted = list(names)
    chosen: Modules = {}
    while wanted:
        name = wanted.pop()
        if name in every and name not in chosen:
            chosen[name] = every[name]
            wanted += depends(load_view(every[name](), default_rules()))
    return chosen


def link_all(modules: Modules, image: Image) -> tuple[TreeReport, dict[str, int]]:
    sizes: dict[str, int] = {}

    def note(module: LinkedModule) -> None:
        sizes[module.name] = module.layout.core_size
        assert module.symbols.error == 0
        assert INIT_REGIONS & set(module.layout.regions)

    return link_tree(modules, kernel_of(image), rules=rules_of(image), each=note), sizes


def test_a_sample_of_debians_modules_links(debian_root: Path, debian_image: Image) -> None:
    every = modules_of(debian_root, debian_image.release)
    modules = with_dependencies(every, list(every)[::50])
    report, sizes = link_all(modules, debian_image)
    assert report.failures == {}
    assert report.linked == len(modules) > 40
    assert report.slow_sections == 0
    assert all(size % 4096 == 0 and size for size in sizes.values())


def test_sizes_are_those_a_real_kernel_shows(debian_root: Path, debian_image: Image) -> None:
    """As ``/proc/modules`` had them on the same release."""
    shown = {"crc_itu_t": 16384, "loop": 32768, "snd_dummy": 28672, "zram": 40960, "ext4": 983040, "xfs": 1970176}
    every = modules_of(debian_root, debian_image.release)
    _, sizes = link_all(with_dependencies(every, list(shown)), debian_image)
    assert {name: sizes[name] for name in shown} == shown


@pytest.mark.full
def test_every_module_of_debian_links(debian_root: Path, debian_image: Image) -> None:
    modules = modules_of(debian_root, debian_image.release)
    report, _ = link_all(modules, debian_image)
    assert report.failures == {}
    assert report.linked == len(modules) > 3000
    assert report.relocations > 1_000_000


@pytest.mark.full
def test_every_module_of_the_next_debian_links(trixie_root: Path, trixie_image: Image) -> None:
    modules = modules_of(trixie_root, trixie_image.release)
    report, _ = link_all(modules, trixie_image)
    assert report.failures == {}
    assert report.linked == len(modules) > 3000
