"""The quick reader of modules agrees with the plain one, on sound files of every kind and on damaged ones."""

from __future__ import annotations

import errno
import gzip
import lzma
import random
from pathlib import Path

import pytest
import zstandard

from builders import ABS, LOCAL, KoBuilder
from kobox.depot.module_facts import Facts, ended, facts_of_bytes, facts_of_file, facts_unless_same, listed
from kobox.depot.module_file import ModuleElf


def rich(bits: int = 64, order: str = "<") -> KoBuilder:
    """A module with everything that depmod looks at."""
    builder = KoBuilder("rich", bits=bits, order=order).export("one", crc=0x11).export("two", crc=0x22, namespace="NS")
    builder.undefined("printk").undefined("weak_one", weak=True).undefined("b")
    builder.version("module_layout", 1).version("printk", 0xABCD).version("gone_since", 3)
    return builder.modinfo(
        ("alias", "fs-x"), ("softdep", "pre: y"), ("alias", "pci:*"), ("weakdep", "z"), license="GPL"
    )


def as_sets(facts: Facts) -> Facts:
    """Exports have no order."""
    return facts._replace(exports=ended(sorted(listed(facts.exports))))


def both(data: bytes) -> tuple[Facts, Facts]:
    return as_sets(facts_of_bytes(data)), as_sets(facts_of_bytes(data, quick=False))


@pytest.mark.parametrize(("bits", "order"), [(64, "<"), (64, ">"), (32, "<"), (32, ">")])
def test_everything_is_found_in_every_class_and_byte_order(bits: int, order: str) -> None:
    quick, plain = both(rich(bits, order).build())
    assert quick == plain
    assert listed(quick.exports) == [b"one", b"two"]
    assert listed(quick.needs) == [b"printk", b"weak_one", b"b", b"module_layout", b"gone_since"]
    assert listed(quick.aliases) == [b"fs-x", b"pci:*"]
    assert listed(quick.softdeps) == [b"pre: y"]
    assert listed(quick.weakdeps) == [b"z"]
    assert quick.error == 0


def test_exports_without_versions_are_the_strings_of_the_symbol_table() -> None:
    quick, plain = both(KoBuilder().export("one").export("two").modinfo(license="GPL").build())
    assert quick == plain
    assert listed(quick.exports) == [b"one", b"two"]


def test_versions_of_exports_are_read_from_their_section_or_their_value() -> None:
    builder = rich().symbol("__crc_absolute", ABS, 0x77, bind=LOCAL)
    exports = ModuleElf(builder.build()).exports()
    assert exports is not None
    assert {symbol.name: symbol.crc for symbol in exports} == {b"one": 0x11, b"two": 0x22, b"absolute": 0x77}


def test_needed_symbols_know_their_version_and_whether_they_are_weak() -> None:
    needs = {symbol.name: (symbol.crc, symbol.weak) for symbol in ModuleElf(rich().build()).needs()}
    assert needs == {
        b"printk": (0xABCD, False),
        b"weak_one": (0, True),
        b"b": (0, False),
        b"module_layout": (1, False),
        b"gone_since": (3, False),
    }


def test_a_local_undefined_symbol_is_needed_too() -> None:
    quick, plain = both(KoBuilder().symbol("odd", 0, bind=LOCAL).undefined("printk").text().build())
    assert quick == plain
    assert listed(quick.needs) == [b"odd", b"printk"]


def test_a_leading_dot_does_not_count() -> None:
    quick, plain = both(KoBuilder().text().undefined(".function").build())
    assert quick == plain
    assert listed(quick.needs) == [b"function"]


def test_a_name_as_long_as_its_field_runs_on_as_in_c() -> None:
    quick, plain = both(KoBuilder().text().undefined("printk").version("x" * 56, 1).version("y", 2).build())
    assert quick == plain


@pytest.mark.parametrize("compress", [lzma.compress, gzip.compress, zstandard.compress], ids=["xz", "gzip", "zstd"])
def test_a_compressed_module_is_read_by_its_first_bytes(tmp_path: Path, compress: object) -> None:
    assert callable(compress)
    path = tmp_path / "rich.ko"
    path.write_bytes(compress(rich().build()))
    assert facts_of_file(str(path)) == facts_of_bytes(rich().build())
    digest, row = facts_unless_same(str(path), b"another")
    assert Facts._make(row) == facts_of_bytes(rich().build())
    assert facts_unless_same(str(path), digest) == (digest, ())


@pytest.mark.parametrize(
    ("data", "number"),
    [
        (b"", errno.EINVAL),
        (b"short", errno.EINVAL),
        (b"not an ELF file at all", errno.ENOEXEC),
        (b"\x7fELF" + bytes(100), errno.EINVAL),
        (b"\xfd7zXZ\0 broken", errno.EINVAL),
        (b"\x1f\x8b broken", errno.EINVAL),
        (b"\x28\xb5\x2f\xfd broken", errno.EINVAL),
    ],
)
def test_what_is_wrong_with_a_file_is_kmods_number(tmp_path: Path, data: bytes, number: int) -> None:
    path = tmp_path / "x.ko"
    path.write_bytes(data)
    assert facts_of_file(str(path)).error == number


def test_a_missing_file_is_a_fact_not_an_exception(tmp_path: Path) -> None:
    assert facts_of_file(str(tmp_path / "x.ko")).error == errno.ENOENT


@pytest.mark.parametrize("seed", range(4))
def test_damaged_modules_are_read_alike_by_both(seed: int) -> None:
    rng = random.Random(seed)
    sound = rich().build()
    tables = int.from_bytes(sound[40:48], "little")
    for _ in range(250):
        data = bytearray(sound)
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(tables, len(data))
            data[place] = rng.choice([0, 1, 0xFF, rng.randrange(256)])
        damaged = bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        quick, plain = both(damaged)
        assert quick == plain, damaged.hex()


@pytest.mark.image
@pytest.mark.full
def test_every_module_of_a_distribution_is_read_alike_by_both(debian_root: Path) -> None:
    paths = sorted((debian_root / "lib/modules").rglob("*.ko*"))
    assert len(paths) > 1000
    for path in paths:
        assert as_sets(facts_of_file(str(path))) == as_sets(facts_of_bytes(path.read_bytes(), quick=False)), path
