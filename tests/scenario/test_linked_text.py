"""A module linked without running anything has the very code that the image's own loader leaves in memory.

The kernel's loader loads a module into the booted image; then the same file is linked again in Python at the addresses
the kernel chose, against its exports, for its CPU. All code must agree but for the places that the kernel patches later
and keeps patching: traced functions, jump labels and static calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from struct import Struct

import pytest

from kobox import link
from kobox.box import Kernel, boot
from kobox.image import Image
from kobox.kernel.cpu_probe import probe_cpu
from kobox.kernel.demands import rules_of
from kobox.kernel.exporters import ExporterList
from kobox.kernel.guest import View
from kobox.kernel.modules import module_views
from kobox.ko import decompress, split_signature
from kobox.link.code import Code
from kobox.link.layout import INIT_REGIONS, Layout

MODULES = ("dm-mod", "x_tables", "nbd", "speakup", "ib_core", "drm")
INIT = 0xFFFFFFFFC8000000
"""Where init memory is said to be: the real one is gone after the load, and no core code has its address."""
_S32 = Struct("<i")
_POINTER = Struct("<Q")


def bases_of(view: View, layout: Layout, types: Mapping[str, int] | None) -> dict[str, int]:
    """Where the kernel put each region."""
    bases = {name: INIT + (number << 20) for number, name in enumerate(layout.regions) if name in INIT_REGIONS}
    if types is None:
        return bases | {"core": view["core_layout.base"]}
    core = [name for name in layout.regions if name not in INIT_REGIONS]
    return bases | {name: view[f"mem[{types['MOD_' + name.upper()]}].base"] for name in core}


def patched_later(linked: LinkedText) -> Iterator[int]:
    """Addresses whose bytes are not fixed."""
    for field, entry in (("jump_entries", 16), ("static_call_sites", 8), ("ftrace_callsites", 8)):
        table = linked.tables.get(field)
        for number in range(table.entries or 0 if table else 0):
            assert table is not None
            at = table.address + number * entry
            place = linked.code.read(at, 8)
            if field == "ftrace_callsites":
                (site,) = _POINTER.unpack(place)
            else:
                site = at + _S32.unpack_from(place)[0]
            yield from range(site, site + 6)


class LinkedText:
    """One module linked at the kernel's addresses."""

    def __init__(self, kernel: Kernel, data: bytes, loaded: View) -> None:
        rules = rules_of(kernel.image)
        types = kernel.guest.layouts.enum("mod_mem_type") if rules.memories else None
        view = link.load_view(split_signature(data)[0], rules)
        self.layout = layout = link.lay_out(view, rules)
        self.bases = bases_of(loaded, layout, types)
        self.memory = layout.image(view)
        addresses = layout.addresses(self.bases)
        exporters = ExporterList(kernel.guest).all(skip=loaded.address)
        resolver = link.Resolver(view, exporters, rules)
        symbols = link.simplify(view, addresses, loaded["percpu"], resolver)
        windows = layout.windows(view, self.memory)
        link.relocate(view, layout, addresses, windows, symbols, memory=self.memory)
        link.finalize(view, addresses, self.memory, self.bases, rules, probe_cpu(kernel.guest))
        self.tables = link.find_tables(view, addresses, rules)
        self.code = Code(self.memory, self.bases)

    @property
    def text(self) -> tuple[int, bytes]:
        """Address and bytes of the module's code."""
        if "core" in self.bases:
            return self.bases["core"], bytes(self.memory["core"][: self.layout.regions["core"].text_size])
        return self.bases["text"], bytes(self.memory["text"])


def differences(kernel: Kernel, path: Path) -> list[int]:
    """Addresses of code bytes that the kernel has otherwise."""
    name = path.name.partition(".ko")[0]
    data = bytes(decompress(path.read_bytes(), name))
    assert kernel.finish_load(kernel.start_load(data, "", 0)) == 0
    loaded = next(view for view in module_views(kernel.guest) if view.text("name") == name.replace("-", "_"))
    linked = LinkedText(kernel, data, loaded)
    base, ours = linked.text
    theirs = kernel.guest.read(base, len(ours))
    later = set(patched_later(linked))
    kernel.reset()
    return [base + at for at in range(len(ours)) if ours[at] != theirs[at] and base + at not in later]


def compare(root: Path, image: Image) -> None:
    with boot(root, loader="kernel") as kernel:
        kernel.mark_pristine()
        for module in MODULES:
            (path,) = (root / "lib/modules" / image.release).rglob(f"{module}.ko*")
            found = differences(kernel, path)
            assert found == [], f"{module}: {len(found)} bytes, the first at {found[0]:#x}"


@pytest.mark.image
def test_code_is_the_kernels_on_debian(debian_root: Path, debian_image: Image) -> None:
    compare(debian_root, debian_image)


@pytest.mark.image
@pytest.mark.full
def test_code_is_the_kernels_on_the_next_debian(trixie_root: Path, trixie_image: Image) -> None:
    compare(trixie_root, trixie_image)
