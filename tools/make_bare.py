"""Derive the bare kernel's two data files from a distribution's kernel image.

The bare kernel has no kernel text. What it needs to know of a real kernel, so that a real ``.ko`` fits it, is written
here as facts: ``bare-VERSION.json`` has release, vermagic, the exports with their checksums and a few settings,
``bare-VERSION.btf.bin`` the layouts of the structures that it and a module both touch, as BTF. What goes in is decided
by ``bare_wanted.toml`` and by what the examples bind to.

    python tools/make_bare.py 6.1.0-56-amd64        # an added image, a root, or a vmlinuz
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from btf_subset import cut

from kobox.errors import KoboxError
from kobox.image import Image, open_image
from kobox.ko import read_module

PROJECT = Path(__file__).resolve().parent.parent
DATA = PROJECT / "src/kobox/kapi/data"
WANTED = Path(__file__).with_name("bare_wanted.toml")


def exports(image: Image, names: Iterable[str]) -> dict[str, list[Any]]:
    """Name to ``[crc, gpl]`` or ``[crc, gpl, namespace]`` of those that the kernel exports."""
    found = [image.exports[name] for name in sorted(names) if name in image.exports]
    return {one.name: [one.crc, int(one.gpl)] + ([one.namespace] if one.namespace else []) for one in found}


def imported(modules: Iterable[Path]) -> set[str]:
    """Every undefined symbol of these modules."""
    return {symbol.name for module in modules for symbol in read_module(module).imports}


def layouts(image: Image) -> bytes:
    """The structures and enums asked for, as BTF; what this kernel does not have is left out."""
    wanted = tomllib.loads(WANTED.read_text())
    picks = {name: set(members.split()) for name, members in wanted["members"].items()}
    return cut(image.btf, wanted["structs"].split() + wanted["enums"].split(), picks)[0]


def facts(image: Image) -> dict[str, Any]:
    """Everything else, as one dictionary."""
    wanted = tomllib.loads(WANTED.read_text())
    examples = sorted((PROJECT / "examples/prebuilt").rglob("*.ko"))
    config = {name: image.config.get(name) for name in wanted["config"].split()}
    return {
        "format": 1,
        "made_from": {"tool": "tools/make_bare.py", "banner": image.banner},
        "release": image.release,
        "vermagic": image.vermagic,
        "config": {f"CONFIG_{name}": value for name, value in config.items() if value},
        "exports": exports(image, imported(examples) | set(wanted["symbols"].split())),
    }


def rendered(data: dict[str, Any]) -> str:
    """JSON with one line for each entry of a table, so that a change reads well in a diff."""

    def compact(value: object) -> str:
        return json.dumps(value, separators=(",", ":"))

    parts = []
    for key, value in data.items():
        if isinstance(value, dict) and key != "made_from":
            rows = ",\n".join(f"  {compact(name)}:{compact(row)}" for name, row in value.items())
            parts.append(f" {compact(key)}: {{\n{rows}\n }}")
        else:
            parts.append(f" {compact(key)}: {compact(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> int:
    """Parse, derive, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", help="an added image's release, a root with boot/ and lib/modules/, or a vmlinuz")
    parser.add_argument("--out", type=Path, default=DATA, help="folder (default: %(default)s)")
    args = parser.parse_args()
    try:
        image = open_image(args.image)
        data, btf = facts(image), layouts(image)
    except KoboxError as error:
        print(f"make_bare: {error}", file=sys.stderr)
        return error.exit_code
    stem = args.out / f"bare-{'.'.join(image.release.split('.')[:2])}"
    args.out.mkdir(parents=True, exist_ok=True)
    stem.with_name(f"{stem.name}.json").write_text(rendered(data))
    stem.with_name(f"{stem.name}.btf.bin").write_bytes(btf)
    print(f"{stem}.*: {len(data['exports'])} exports, {len(btf)} bytes of BTF")
    return 0


if __name__ == "__main__":
    sys.exit(main())
