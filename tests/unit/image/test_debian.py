"""The distribution's kernels as a whole: what kobox reads agrees with itself, with the modules built beside it, and
with the tools that read the same data."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headers import kernel_headers
from kobox.image import Btf, Image, Kind, Type
from kobox.ko import read_module
from needs import lacking, need_program

pytestmark = pytest.mark.image

PATTERN_OF_UD2 = b"\x0f\x0b"
LOCK_PREFIXES = {0xF0, 0x66}  # an operand size prefix may come first


@pytest.fixture(params=["debian_image", pytest.param("trixie_image", marks=pytest.mark.full)], scope="module")
def image(request: pytest.FixtureRequest) -> Image:
    return request.getfixturevalue(request.param)


def test_the_root_holds_a_kernel_and_modules(debian_root: Path, debian_image: Image) -> None:
    assert (debian_root / "boot" / f"vmlinuz-{debian_image.release}").is_file()
    assert debian_image.modules == debian_root / "lib/modules" / debian_image.release


def test_banner_and_vermagic_begin_with_the_release(image: Image) -> None:
    assert image.banner.startswith(f"Linux version {image.release} ")
    assert image.vermagic.split() == [image.release, "SMP", "preempt", "mod_unload", "modversions"]


def test_addresses_of_sections_are_those_of_their_symbols(image: Image) -> None:
    names = {".text": "_text", "__ex_table": "__start___ex_table", ".BTF": "__start_BTF", ".bss": "__bss_start"}
    for section, symbol in names.items():
        found = image.layout.section(section)
        assert found is not None, section
        assert found.addr == image.symbols[symbol], section


def test_every_export_is_a_symbol_at_its_address(image: Image) -> None:
    wrong = [name for name, export in image.exports.items() if export.address not in image.symbols.all(name)]
    assert wrong == []
    assert len(image.exports) > 10_000


def test_every_symbol_is_found_by_name_and_by_address(image: Image) -> None:
    wrong = []
    for symbol in image.symbols.records():
        if symbol.address not in image.symbols.all(symbol.name) or (
            symbol.name not in image.symbols.exactly_at(symbol.address)
        ):
            wrong.append(symbol)
    assert wrong == []


def test_modules_were_built_against_the_same_crcs(image: Image) -> None:
    assert image.modules is not None
    checked = 0
    for path in sorted(image.modules.rglob("*.ko*"))[::40]:
        for name, crc in read_module(path).versions.items():
            if name in image.exports:
                assert image.exports[name].crc == crc, f"{path.name}: {name}"
                checked += 1
    assert checked > 1_000


def test_symvers_of_the_headers_are_the_exports(debian_image: Image) -> None:
    headers = kernel_headers(debian_image.release)
    if headers.release != debian_image.release:
        lacking(f"headers of {debian_image.release}, not of {headers.release}")
    rows = [line.split("\t") for line in (headers.directory / "Module.symvers").read_text().splitlines()]
    expected = {
        (name, int(crc, 16), kind == "EXPORT_SYMBOL_GPL", space)
        for crc, name, owner, kind, space in rows
        if owner == "vmlinux"
    }
    exports = debian_image.exports.values()
    assert {(export.name, export.crc, export.gpl, export.namespace) for export in exports} == expected


def test_every_bug_site_is_an_undefined_instruction(image: Image) -> None:
    sites = list(image.bug_table())
    assert len(sites) > 5_000
    assert [site for site in sites if image.read(site.address, 2) != PATTERN_OF_UD2] == []
    assert {Path(site.file).suffix for site in sites} <= {".c", ".h"}


def test_fixups_ascend_and_lie_in_text(image: Image) -> None:
    fixups = list(image.exception_table())
    assert len(fixups) > 500
    assert fixups == sorted(fixups, key=lambda fixup: fixup.insn)
    text = range(image.symbols["_stext"], image.symbols["_einittext"])
    assert all(fixup.insn in text and fixup.fixup in text for fixup in fixups)


def test_every_lock_site_is_a_prefix(image: Image) -> None:
    sites = list(image.smp_locks())
    assert len(sites) > 5_000
    assert {image.read(site, 1)[0] for site in sites} <= LOCK_PREFIXES


def test_functions_have_an_unwind_entry_at_or_before_them(image: Image) -> None:
    for name in ("vfs_read", "schedule", "do_exit", "kfree"):
        address = image.symbols[name]
        entry = image.unwind_entry(address + 1)
        assert entry is not None
        assert image.symbols["_stext"] <= entry.address <= address + 1


def test_initcalls_are_functions_with_names_in_level_order(image: Image) -> None:
    calls = list(image.initcalls())
    assert len(calls) > 600
    assert not [call for call in calls if call.name.startswith("0x")]
    order = list(dict.fromkeys(call.level for call in calls))
    assert order == ["early", "pure", "core", "postcore", "arch", "subsys", "fs", "rootfs", "device", "late", "console"]


def test_compiled_in_certificates_are_whole(image: Image) -> None:
    blob = image.certificates()
    assert blob
    while blob:
        assert blob[:2] == b"\x30\x82"
        size = 4 + int.from_bytes(blob[2:4], "big")
        assert size <= len(blob)
        blob = blob[size:]


def test_the_configuration_is_the_kernels_own(image: Image) -> None:
    assert image.config["MODVERSIONS"] == "y"
    assert image.config.enabled("EXT4_FS")


def test_a_size_that_the_kernel_fixes_is_that_of_the_types(image: Image) -> None:
    module = image.btf.struct("module")
    assert module.member("name").size == 56
    assert image.btf.struct("list_head").size == 16
    assert image.btf.struct("task_struct").member("comm").size == 16
    assert image.btf.constant("MODULE_STATE_COMING") == 1
    state = image.btf.func("vfs_read")
    assert state is not None
    assert state.declare() == "ssize_t vfs_read(struct file *file, char *buf, size_t count, loff_t *pos)"


def test_every_type_of_the_kernel_can_be_declared(image: Image) -> None:
    assert sum(len(kind.declare("x")) > 0 for kind in image.btf) == len(image.btf) - 1


def test_types_are_those_of_bpftool(image: Image, tmp_path: Path) -> None:
    raw = tmp_path / "vmlinux.btf"
    raw.write_bytes(image.between("__start_BTF", "__stop_BTF"))
    _compare_with_bpftool(image.btf, raw, None)


@pytest.mark.parametrize("name", ["ext4", "nf_tables", "snd"])
def test_types_of_a_module_are_those_of_bpftool(image: Image, tmp_path: Path, name: str) -> None:
    assert image.modules is not None
    (path,) = image.modules.rglob(f"{name}.ko*")
    module = read_module(path)
    section = module.elf.section(".BTF")
    assert section is not None
    blob = bytes(module.elf.bytes_of(section))
    (tmp_path / "base").write_bytes(image.between("__start_BTF", "__stop_BTF"))
    (tmp_path / "split").write_bytes(blob)
    _compare_with_bpftool(Btf(blob, base=image.btf, name=path.name), tmp_path / "split", tmp_path / "base")


def test_opening_again_reads_nothing_but_the_record(debian_root: Path, debian_image: Image) -> None:
    """Start must not walk types, expand symbols or unpack: modules that would do so are not even run."""
    code = (
        "import sys; from kobox.image import Cache, open_image; from kobox.image import btf, kallsyms, vmlinuz\n"
        "def refuse(*args, **options): raise SystemExit('start did work')\n"
        "btf._walk_types = kallsyms.read_kallsyms = vmlinuz.unpack = refuse\n"
        "import kobox.image.image as image; image.read_kallsyms = image.unpack = refuse\n"
        "opened = open_image(sys.argv[1], Cache(__import__('pathlib').Path(sys.argv[2])))\n"
        "print(opened.symbols['_text'] and opened.btf.struct('module').size and len(opened.exports))"
    )
    root = debian_image.path.parent.parent
    done = subprocess.run([sys.executable, "-c", code, debian_root, root], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert int(done.stdout) == len(debian_image.exports)


def _compare_with_bpftool(btf: Btf, raw: Path, base: Path | None) -> None:
    need_program("bpftool")
    program = shutil.which("bpftool", path="/usr/sbin:/sbin:/usr/bin:/bin") or "bpftool"
    command = [program, *(["-B", str(base)] if base else []), "-j", "btf", "dump", "file", str(raw)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    dumped = {entry["id"]: entry for entry in json.loads(done.stdout)["types"]}
    for entry in dumped.values():
        for value in entry.get("values", ()) if entry["kind"] == "ENUM" else ():
            value["val"] %= 1 << 32  # it extends the sign of unsigned enumerators too
    own = {kind.id: _as_bpftool(kind) for kind in btf}
    assert own.keys() == dumped.keys()
    wrong = [(own[number], dumped[number]) for number in own if not _agree(own[number], dumped[number])]
    assert wrong[:3] == []


def _as_bpftool(kind: Type) -> dict[str, Any]:
    """What bpftool's JSON says of a type."""
    facts: dict[str, Any] = {"id": kind.id, "kind": kind.kind.name, "name": kind.name or "(anon)"}
    facts |= _EXTRA.get(kind.kind, lambda kind: {})(kind)
    return facts


def _agree(own: dict[str, Any], dumped: dict[str, Any]) -> bool:
    return all(dumped.get(key) == value for key, value in own.items())


def _members(kind: Type) -> Iterator[dict[str, Any]]:
    for member in kind.members:
        facts = {"name": member.name or "(anon)", "type_id": member.type.id, "bits_offset": member.bit_offset}
        yield facts | ({"bitfield_size": member.bit_size} if member.bit_size else {})


def _composite(kind: Type) -> dict[str, Any]:
    return {"size": kind.size, "vlen": len(kind.members), "members": list(_members(kind))}


def _enum(kind: Type) -> dict[str, Any]:
    modulus = 1 << 8 * max(kind.size, 4)
    values = [{"name": name, "val": value % modulus} for name, value in kind.enumerators.items()]
    return {"size": kind.size, "values": values}


def _proto(kind: Type) -> dict[str, Any]:
    params = [{"name": param.name or "(anon)", "type_id": param.type.id} for param in kind.params]
    if kind.is_variadic:
        params.append({"name": "(anon)", "type_id": 0})
    return {"ret_type_id": kind.returns.id, "params": params}


def _target(kind: Type) -> dict[str, Any]:
    return {"type_id": kind.target.id}


_EXTRA = {
    Kind.INT: lambda kind: {"size": kind.size, "nr_bits": kind.bits},
    Kind.PTR: _target,
    Kind.ARRAY: lambda kind: {"type_id": kind.target.id, "nr_elems": kind.count},
    Kind.STRUCT: _composite,
    Kind.UNION: _composite,
    Kind.ENUM: _enum,
    Kind.ENUM64: _enum,
    Kind.FWD: lambda kind: {"fwd_kind": "union" if kind.is_union else "struct"},
    Kind.TYPEDEF: _target,
    Kind.VOLATILE: _target,
    Kind.CONST: _target,
    Kind.RESTRICT: _target,
    Kind.FUNC: _target,
    Kind.FUNC_PROTO: _proto,
    Kind.VAR: _target,
    Kind.FLOAT: lambda kind: {"size": kind.size},
    Kind.TYPE_TAG: _target,
    Kind.DECL_TAG: _target,
}
