"""Derive the bare kernel's data file from a distribution's kernel image.

The bare kernel has no kernel text. What it needs to know of a real kernel, so that a real ``.ko`` fits it, is written
here as facts: release, vermagic, the exports with their checksums, a few settings, and the layouts of the structures
that it and a module both touch. What goes in is decided by ``bare_wanted.toml`` and by what the examples bind to.

    python tools/make_bare.py 6.1.0-56-amd64        # an added image, a root, or a vmlinuz
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kobox.errors import KoboxError
from kobox.image import Image, open_image
from kobox.image.btf import Btf, Type
from kobox.ko import read_module

PROJECT = Path(__file__).resolve().parent.parent
WANTED = Path(__file__).with_name("bare_wanted.toml")


def find_type(btf: Btf, name: str) -> Type | None:
    """A struct, union or enum by its name, or what a typedef of that name stands for."""
    found = btf.find_struct(name) or btf.find(name)
    return found.strip() if found else None


def members(kind: Type, base_bits: int = 0) -> Iterator[tuple[str, list[Any]]]:
    """Name and ``[offset, size, type]`` of each member, anonymous ones unfolded. Bit fields add first bit and width."""
    for member in kind.members:
        bits = base_bits + member.bit_offset
        if not member.name:
            yield from members(member.type.strip(), bits)
            continue
        place: list[Any] = [bits // 8, member.size, short(member.type.declare())]
        if member.bit_size:
            first = bits // (8 * member.size) * member.size
            place = [first, member.size, place[2], bits - 8 * first, member.bit_size]
        yield member.name, place


def short(declaration: str) -> str:
    """The declaration without qualifiers; of a function pointer only that it is one."""
    if "(*" in declaration:
        return "(*)()" + declaration[declaration.rindex("[") :] if declaration.endswith("]") else "(*)()"
    words = (word for word in declaration.split() if word not in ("const", "volatile", "restrict"))
    return " ".join(words).replace(" [", "[")


def layouts(btf: Btf, wanted: dict[str, Any]) -> dict[str, Any]:
    """Size and members of every structure asked for; what this kernel does not have is left out."""
    picks: dict[str, set[str] | None] = dict.fromkeys(wanted["structs"].split())
    picks.update({name: set(names.split()) for name, names in wanted["members"].items()})
    result = {}
    for name, pick in sorted(picks.items()):
        kind = find_type(btf, name)
        if kind is not None:
            chosen = {key: place for key, place in members(kind) if pick is None or key in pick}
            result[name] = {"size": kind.size, "members": chosen}
    return result


def enums(btf: Btf, wanted: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Name to value of each enum asked for."""
    found = {name: find_type(btf, name) for name in wanted["enums"].split()}
    return {name: kind.enumerators for name, kind in found.items() if kind}


def exports(image: Image, names: Iterable[str]) -> dict[str, list[Any]]:
    """Name to ``[crc, gpl]`` or ``[crc, gpl, namespace]`` of those that the kernel exports."""
    found = [image.exports[name] for name in sorted(names) if name in image.exports]
    return {one.name: [one.crc, int(one.gpl)] + ([one.namespace] if one.namespace else []) for one in found}


def imported(modules: Iterable[Path]) -> set[str]:
    """Every undefined symbol of these modules."""
    return {symbol.name for module in modules for symbol in read_module(module).imports}


def derive(image: Image) -> dict[str, Any]:
    """The whole data file as one dictionary."""
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
        "enums": enums(image.btf, wanted),
        "structs": layouts(image.btf, wanted),
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
    parser.add_argument("--out", type=Path, help="default: src/kobox/kapi/data/bare-VERSION.json")
    args = parser.parse_args()
    try:
        data = derive(open_image(args.image))
    except KoboxError as error:
        print(f"make_bare: {error}", file=sys.stderr)
        return error.exit_code
    version = ".".join(data["release"].split(".")[:2])
    out = args.out or PROJECT / f"src/kobox/kapi/data/bare-{version}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(rendered(data))
    print(f"{out}: {len(data['exports'])} exports, {len(data['structs'])} structures, {out.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
