"""Derive the bare kernel's data file from a distribution's kernel image and headers.

The bare kernel has no kernel text. What it needs to know of a real kernel, so that a real ``.ko`` fits it, is written
here as facts: release, vermagic, the exports with their checksums, a few settings, and the layouts of the structures
that it and a module both touch. What goes in is decided by ``bare_wanted.toml`` and by what the examples bind to.

    python tools/make_bare.py --image DIR --headers DIR      # DIR: where the .deb files were unpacked
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import kernel_headers

from kobox.image import vmlinuz

PROJECT = Path(__file__).resolve().parent.parent
WANTED = Path(__file__).with_name("bare_wanted.toml")
KIND_WORD = {"STRUCT": "struct ", "UNION": "union ", "ENUM": "enum ", "ENUM64": "enum "}
QUALIFIERS = {"CONST", "VOLATILE", "RESTRICT", "TYPE_TAG", "TYPEDEF"}


class Types:
    """The kernel's own type information, as ``bpftool btf dump -j`` gives it."""

    def __init__(self, kinds: list[dict[str, Any]]) -> None:
        self.by_id = {kind["id"]: kind for kind in kinds}
        self.by_name: dict[tuple[str, str], dict[str, Any]] = {}
        for kind in kinds:
            self.by_name.setdefault((kind["kind"], kind["name"]), kind)

    def struct(self, name: str) -> dict[str, Any] | None:
        """A struct, or the struct behind a typedef, by its name."""
        found = self.by_name.get(("STRUCT", name))
        typedef = self.by_name.get(("TYPEDEF", name))
        if found is None and typedef is not None:
            target = self.resolved(typedef["type_id"])
            found = target if target and target["kind"] == "STRUCT" else None
        return found

    def resolved(self, type_id: int) -> dict[str, Any] | None:
        """The type behind typedefs and qualifiers; None for void."""
        while type_id and self.by_id[type_id]["kind"] in QUALIFIERS:
            type_id = self.by_id[type_id]["type_id"]
        return self.by_id[type_id] if type_id else None

    def size(self, type_id: int) -> int:
        """Size in bytes."""
        kind = self.resolved(type_id)
        if kind is None:
            return 0
        if kind["kind"] == "PTR":
            return 8
        if kind["kind"] == "ARRAY":
            return self.size(kind["type_id"]) * int(kind["nr_elems"])
        return int(kind.get("size", 0))

    def text(self, type_id: int) -> str:
        """The type as C writes it, without qualifiers; a function pointer is ``(*)()``."""
        if not type_id:
            return "void"
        kind = self.by_id[type_id]
        match kind["kind"]:
            case "CONST" | "VOLATILE" | "RESTRICT" | "TYPE_TAG":
                return self.text(kind["type_id"])
            case "PTR":
                target = self.text(kind["type_id"])
                return "(*)()" if target == "()" else f"{target} *".replace("* *", "**")
            case "ARRAY":
                return f"{self.text(kind['type_id'])}[{kind['nr_elems']}]"
            case "FUNC_PROTO":
                return "()"
            case _:
                named = kind["name"] if kind["name"] != "(anon)" else "{}"
                return KIND_WORD.get(kind["kind"], "") + named

    def members(self, struct: dict[str, Any], base_bits: int = 0) -> Iterator[tuple[str, list[Any]]]:
        """Name and ``[offset, size, type]`` of each member; a bit field adds its first bit and its width."""
        for member in struct["members"]:
            bits = base_bits + member["bits_offset"]
            kind = self.resolved(member["type_id"])
            if member["name"] == "(anon)" and kind is not None and kind["kind"] in ("STRUCT", "UNION"):
                yield from self.members(kind, bits)
                continue
            size = self.size(member["type_id"])
            place: list[Any] = [bits // 8, size, self.text(member["type_id"])]
            if member.get("bitfield_size"):
                first = bits // (8 * size) * size
                place = [first, size, place[2], bits - 8 * first, member["bitfield_size"]]
            yield member["name"], place


def layouts(types: Types, wanted: dict[str, Any]) -> dict[str, Any]:
    """Size and members of every structure asked for; what this kernel does not have is left out."""
    picks: dict[str, set[str] | None] = dict.fromkeys(wanted["structs"].split())
    picks.update({name: set(members.split()) for name, members in wanted["members"].items()})
    result = {}
    for name, pick in sorted(picks.items()):
        struct = types.struct(name)
        if struct is None:
            continue
        members = {key: place for key, place in types.members(struct) if pick is None or key in pick}
        result[name] = {"size": struct["size"], "members": members}
    return result


def enums(types: Types, wanted: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Name to value of each enum asked for."""
    found = {name: types.by_name.get(("ENUM", name)) for name in wanted["enums"].split()}
    return {name: {value["name"]: value["val"] for value in enum["values"]} for name, enum in found.items() if enum}


def exports(headers: kernel_headers.Headers, names: Iterable[str]) -> dict[str, list[Any]]:
    """Name to ``[crc, gpl]`` or ``[crc, gpl, namespace]``, from the headers' table of what vmlinux exports."""
    chosen, result = set(names), {}
    for line in (headers.directory / "Module.symvers").read_text().splitlines():
        crc, name, module, kind, namespace = line.split("\t")
        if name in chosen and module == "vmlinux":
            result[name] = [int(crc, 16), int(kind.endswith("_GPL"))] + ([namespace] if namespace else [])
    return dict(sorted(result.items()))


def imported(modules: Iterable[Path]) -> set[str]:
    """Every undefined symbol of these modules."""
    listed = subprocess.run(["nm", "-u", *map(str, modules)], capture_output=True, text=True, check=True).stdout
    return {line.split()[1] for line in listed.splitlines() if line.strip().startswith(("U ", "w "))}


def kernel_types(vmlinux: bytes) -> Types:
    """Types of a kernel, read out by bpftool."""
    with tempfile.NamedTemporaryFile(suffix="vmlinux") as file:
        file.write(vmlinux)
        file.flush()
        dump = subprocess.run(["bpftool", "btf", "dump", "-j", "file", file.name], capture_output=True, check=True)
    return Types(json.loads(dump.stdout)["types"])


def settings(config: str, names: Iterable[str]) -> dict[str, str]:
    """The build settings that decide how modules are loaded."""
    found = dict(re.findall(r"^CONFIG_(\w+)=(.*)$", config, re.MULTILINE))
    return {f"CONFIG_{name}": found[name].strip('"') for name in names if name in found}


def vermagic(root: Path, release: str) -> str:
    """The version string of the first module of the image's tree."""
    module = next((root / "lib/modules" / release / "kernel").rglob("*.ko*"))
    line = ["modinfo", "-F", "vermagic", str(module)]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.rstrip("\n")


def package_version(vmlinux: bytes) -> str:
    """The version banner that the kernel prints first."""
    banner = re.search(rb"Linux version [ -~]+", vmlinux)
    return banner[0].decode() if banner else ""


def rendered(data: dict[str, Any]) -> str:
    """JSON with one line for each entry of a table, so that a change reads well in a diff."""

    def compact(value: object) -> str:
        return json.dumps(value, separators=(",", ":"))

    parts = []
    for key, value in data.items():
        if isinstance(value, dict) and key not in ("made_from",):
            rows = ",\n".join(f"  {compact(name)}:{compact(row)}" for name, row in value.items())
            parts.append(f" {compact(key)}: {{\n{rows}\n }}")
        else:
            parts.append(f" {compact(key)}: {compact(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def derive(image: Path, headers: kernel_headers.Headers) -> dict[str, Any]:
    """The whole data file as one dictionary."""
    release, wanted = headers.release, tomllib.loads(WANTED.read_text())
    boot_file = image / f"boot/vmlinuz-{release}"
    packed = boot_file.read_bytes()
    vmlinux = vmlinuz.unpack(packed, boot_file.name)
    types = kernel_types(vmlinux)
    examples = sorted((PROJECT / "examples/prebuilt").rglob("*.ko"))
    return {
        "format": 1,
        "made_from": {
            "tool": "tools/make_bare.py",
            "banner": package_version(vmlinux),
            "vmlinuz_sha256": hashlib.sha256(packed).hexdigest(),
        },
        "release": release,
        "vermagic": vermagic(image, release),
        "config": settings((image / f"boot/config-{release}").read_text(), wanted["config"].split()),
        "exports": exports(headers, imported(examples) | set(wanted["symbols"].split())),
        "enums": enums(types, wanted),
        "structs": layouts(types, wanted),
    }


def main() -> int:
    """Parse, derive, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kernel_headers.add_arguments(parser)
    parser.add_argument("--image", type=Path, default=Path("/"), help="root with boot/ and lib/modules/ (default: /)")
    parser.add_argument("--out", type=Path, help="default: src/kobox/kapi/data/bare-VERSION.json")
    args = parser.parse_args()
    try:
        headers = kernel_headers.from_arguments(args)
        data = derive(args.image, headers)
    except (kernel_headers.NoHeaders, OSError, subprocess.CalledProcessError) as error:
        print(f"make_bare: {error}", file=sys.stderr)
        return 1
    version = ".".join(headers.release.split(".")[:2])
    out = args.out or PROJECT / f"src/kobox/kapi/data/bare-{version}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(rendered(data))
    print(f"{out}: {len(data['exports'])} exports, {len(data['structs'])} structures, {out.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
