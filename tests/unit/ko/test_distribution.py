"""Every module of a distribution, beside what kmod and binutils say about the same files, and the modules beside each
other: a CRC that one module was built against is the one that another exports."""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kobox.ko import Export, Import, ModInfo, Param, read_module
from kobox.ko.overview import Overview, SignatureFacts, overview
from needs import need_program

pytestmark = [pytest.mark.full, pytest.mark.image]


@dataclass(frozen=True)
class Facts:
    """What the tests compare; the file's bytes are let go, a distribution has half a gigabyte of them."""

    file: str
    name: str
    page: Overview
    modinfo: ModInfo
    depends: tuple[str, ...]
    params: tuple[Param, ...]
    exports: tuple[Export, ...]
    imports: tuple[Import, ...]
    versions: dict[str, int]
    misplaced: tuple[str, ...]
    """Exports that are not where the symbol of their name is."""


def facts_of(file: str) -> Facts:
    m = read_module(file)
    misplaced = []
    for export in m.exports:
        symbol = m.elf.symbols.find(export.name)
        if symbol is None or (symbol.shndx, symbol.value) != (export.section, export.offset):
            misplaced.append(export.name)
    page = overview(m)
    return Facts(file, m.name, page, m.modinfo, m.depends, m.params, m.exports, m.imports, m.versions, tuple(misplaced))


@pytest.fixture(scope="module", params=["debian_root", "trixie_root"])
def modules(request: pytest.FixtureRequest) -> list[Facts]:
    """Every module of the image: plain on Debian 12, compressed on Debian 13."""
    root = request.getfixturevalue(request.param)
    files = sorted(str(path) for path in Path(root, "lib/modules").rglob("*.ko*"))
    assert len(files) > 3000
    return [facts_of(file) for file in files]


@pytest.fixture(scope="module")
def plain_files(modules: list[Facts], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Path that binutils can read to the module's own path."""
    folder = tmp_path_factory.mktemp("plain")
    plain = {}
    for number, module in enumerate(modules):
        file = module.file
        if module.page.compression:
            file = str(folder / f"{number}.ko")
            Path(file).write_bytes(read_module(module.file).data)
        plain[file] = module.file
    return plain


def output(*command: str) -> bytes:
    env = os.environ | {"PATH": os.environ.get("PATH", "") + ":/sbin:/usr/sbin", "LC_ALL": "C"}
    return subprocess.run(command, capture_output=True, check=True, env=env).stdout


def test_every_part_of_every_module_is_read(modules: list[Facts]) -> None:
    pages = [module.page for module in modules]
    assert all(page.license and page.vermagic and page.this_module_size for page in pages)
    assert all(page.signature is None or not page.signature.problems for page in pages)
    assert sum(page.exports for page in pages) > 10_000
    assert sum(page.params for page in pages) > 4000


def test_metadata_and_signature_are_what_modinfo_prints(modules: list[Facts]) -> None:
    need_program("modinfo")
    printed: dict[str, list[str]] = {}
    for entry in output("modinfo", "-0", *(module.file for module in modules)).decode().split("\0"):
        if entry.startswith("filename:"):
            lines = printed.setdefault(entry.partition(":")[2].strip(), [])
        elif entry.startswith("parm:"):  # kmod 30 separates this one differently
            lines.append(f"parm={entry.partition(':')[2].lstrip()}")
        elif entry:
            lines.append(entry.replace("\n\t\t", "") if entry.startswith("signature=") else entry)
    for module in modules:
        signed = signature_as_modinfo_prints(module.page.signature)
        expected = printed[module.file]
        in_order = [line for line in expected if not line.startswith("parm=")]
        parms = sorted(line for line in expected if line.startswith("parm="))  # modinfo's own order is arbitrary
        assert as_modinfo_prints(module.modinfo, signed) == [*in_order, *parms]
    assert len(printed) == len(modules)


def signature_as_modinfo_prints(facts: SignatureFacts | None) -> list[str]:
    if facts is None or facts.signer is None:
        return []
    signer = facts.signer
    return [
        f"sig_id={facts.kind}",
        f"signer={signer.name}",
        f"sig_key={signer.serial.hex(':').upper()}",
        f"sig_hashalgo={signer.hash}",
        f"signature={signer.signature.hex(':').upper()}",
    ]


def as_modinfo_prints(modinfo: ModInfo, signed: list[str]) -> list[str]:
    """The pairs, the signature, and one line for each parameter."""
    lines = [f"{key}={value}" for key, value in modinfo if key not in ("parm", "parmtype")] + signed
    described: dict[str, dict[str, str]] = {}
    for key, value in modinfo:
        if key in ("parm", "parmtype"):
            name, _, text = value.partition(":")
            described.setdefault(name, {})[key] = text
    parms = []
    for name, texts in described.items():
        kind = f" ({texts['parmtype']})" if "parm" in texts and "parmtype" in texts else ""
        parms.append(f"parm={name}:{texts.get('parm', texts.get('parmtype'))}{kind}")
    return lines + sorted(parms)


def symbols_by_nm(files: dict[str, str], *options: str) -> Iterator[tuple[str, str, str]]:
    """``(file, name, letter)`` for every symbol nm prints."""
    file = ""
    for line in output("nm", "--format=posix", *options, *files).decode().splitlines():
        if line.endswith(".ko:"):
            file = files[line[:-1]]
        elif line:
            name, letter, *_ = line.split(" ")
            yield file, name, letter


def test_imports_are_what_nm_finds_undefined(modules: list[Facts], plain_files: dict[str, str]) -> None:
    need_program("nm")
    expected: dict[str, set[tuple[str, bool]]] = defaultdict(set)
    for file, name, letter in symbols_by_nm(plain_files, "--undefined-only"):
        expected[file].add((name, letter in "wv"))
    assert {m.file: {(i.name, i.weak) for i in m.imports} for m in modules if m.imports} == dict(expected)


def test_exports_are_the_ksymtab_entries_that_nm_finds(modules: list[Facts], plain_files: dict[str, str]) -> None:
    need_program("nm")
    expected: dict[str, set[str]] = defaultdict(set)
    for file, name, _ in symbols_by_nm(plain_files, "--defined-only"):
        if name.startswith("__ksymtab_"):
            expected[file].add(name.removeprefix("__ksymtab_"))
    assert {m.file: {e.name for e in m.exports} for m in modules if m.exports} == dict(expected)


def test_an_exports_place_is_where_its_symbol_is(modules: list[Facts]) -> None:
    assert [(module.file, module.misplaced) for module in modules if module.misplaced] == []


def test_a_crc_is_the_same_wherever_it_stands(modules: list[Facts]) -> None:
    seen = {export.name: export.crc for module in modules for export in module.exports}
    exported, between_modules = set(seen), 0
    for module in modules:
        for name, crc in module.versions.items():
            assert seen.setdefault(name, crc) == crc
            between_modules += name in exported
    assert between_modules > 10_000


def test_dependencies_are_those_whose_exports_are_imported(modules: list[Facts]) -> None:
    exporters = {export.name: module.name for module in modules for export in module.exports}
    for module in modules:
        names = {symbol.name for symbol in module.imports}
        needed = {exporters[name] for name in names & exporters.keys()}
        assert (module.file, needed) == (module.file, {name.replace("-", "_") for name in module.depends})
        assert names <= module.versions.keys()


def test_parameters_agree_with_their_descriptions(modules: list[Facts]) -> None:
    checked = 0
    for module in modules:
        for param in module.params:
            if param.type in ("int", "uint", "charp", "bool") and param.ops in PLAIN_OPS:
                assert (module.file, param.name, param.ops) == (module.file, param.name, f"param_ops_{param.type}")
                checked += 1
    assert checked > 3000


PLAIN_OPS = {f"param_ops_{kind}" for kind in ("int", "uint", "charp", "bool")}
