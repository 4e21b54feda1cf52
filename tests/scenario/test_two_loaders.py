"""kobox's loader and the image's own put the same bytes in memory: layout, relocations, patches, sorted tables."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from kobox.box import Kernel, boot
from kobox.image import Image
from kobox.kernel.modules import module_views

pytestmark = pytest.mark.image

#: Modules without dependencies, between them with every kind of patched site and sorted table.
MODULES = ("dm-mod", "x_tables", "team", "speakup", "rds", "nbd", "fuse", "zsmalloc")


class Core(NamedTuple):
    """A loaded module's core: where it is, where each part ends, and what does not change while it runs."""

    base: int
    text_size: int
    ro_size: int
    ro_after_init_size: int
    size: int
    fixed: bytes


def core_of(kernel: Kernel, name: str) -> Core:
    view = next(view for view in module_views(kernel.guest) if view.text("name") == name)
    base, text, ro, after_init, size = (
        view[f"core_layout.{part}"] for part in ("base", "text_size", "ro_size", "ro_after_init_size", "size")
    )
    return Core(base, text, ro, after_init, size, kernel.guest.read(base, after_init))


def loaded(root: Path, image: Image, loader: str) -> dict[str, Core]:
    found = {}
    with boot(root, loader=loader, check_memory=False) as kernel:
        kernel.mark_pristine()
        for module in MODULES:
            (path,) = (root / "lib/modules" / image.release).rglob(f"{module}.ko")
            name = module.replace("-", "_")
            kernel.insmod(path)
            found[name] = core_of(kernel, name)
            kernel.reset()
    return found


def test_both_loaders_put_the_same_code_and_constants_in_memory(debian_root: Path, debian_image: Image) -> None:
    ours = loaded(debian_root, debian_image, "kobox")
    theirs = loaded(debian_root, debian_image, "kernel")
    assert {name: core[:5] for name, core in ours.items()} == {name: core[:5] for name, core in theirs.items()}
    for name, core in theirs.items():
        differing = [at for at in range(core.ro_after_init_size) if core.fixed[at] != ours[name].fixed[at]]
        assert differing == [], f"{name}: first difference at {differing[0]:#x}"
