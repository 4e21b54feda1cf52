"""The bare kernel's functions: declared once, told apart from stubs, and true to the versions in the data file."""

from __future__ import annotations

from kobox.bare.api import find, tables
from kobox.bare.api.uaccess import SPECIAL
from kobox.bare.data import BareData
from kobox.bare.variables import VARIABLES


def test_no_two_headers_declare_one_name() -> None:
    names = [name for table in tables() for declared in table for name in (declared.name, *declared.also)]
    assert sorted(names) == sorted(set(names))


def test_every_function_and_variable_has_its_version_in_the_data_file() -> None:
    known = set(BareData().exports)
    names = {name for table in tables() for declared in table for name in (declared.name, *declared.also)}
    assert names | set(SPECIAL) <= known
    assert set(VARIABLES) <= known


def test_prototypes_read_as_c() -> None:
    declared = find("kmalloc_trace")
    assert declared is not None
    assert declared.prototype == "void *kmalloc_trace(void *cache, gfp_t flags, size_t size)"
    assert find("no_such_function") is None


def test_the_data_file_says_what_it_was_made_from() -> None:
    data = BareData()
    assert data.banner.startswith(f"Linux version {data.release} ")
    assert data.vermagic.startswith(data.release)
    assert data.btf.struct("module").member("name").offset == 24
