"""The bare kernel's data files: what they hold, and that they are what the kernel they name gives."""

from __future__ import annotations

import json

import pytest
from make_bare import DATA, PROJECT, facts, imported, layouts, rendered

from kobox.image import Image
from kobox.image.btf import Btf, Kind

FACTS = json.loads((DATA / "bare-6.1.json").read_text())
BTF = (DATA / "bare-6.1.btf.bin").read_bytes()


def test_the_files_are_small_and_say_what_they_were_made_from() -> None:
    assert len(BTF) + (DATA / "bare-6.1.json").stat().st_size < 60_000
    assert FACTS["release"] in FACTS["made_from"]["banner"]


def test_every_symbol_that_an_example_binds_to_is_listed_with_its_checksum() -> None:
    modules = sorted((PROJECT / "examples/prebuilt").rglob("*.ko"))
    own = {"exporter_add", "exporter_calls", "exporter_motto", "exporter_multiply"}
    assert imported(modules) - own <= FACTS["exports"].keys()
    assert all(isinstance(crc, int) for crc, *_ in FACTS["exports"].values())


def test_a_structure_is_kept_with_all_that_it_contains() -> None:
    module = Btf(BTF).struct("module")
    assert module.member("core_layout.base").size == 8
    assert module.member("mkobj.kobj.kref.refcount.refs.counter").size == 4


def test_of_big_structures_only_the_members_asked_for_are_kept() -> None:
    task = Btf(BTF).struct("task_struct")
    assert task.find("comm") is not None
    assert task.find("bpf_storage") is None
    assert task.size > 4096


def test_what_is_only_pointed_to_is_declared_and_not_described() -> None:
    scheduled = Btf(BTF).struct("task_struct").member("sighand").type.target
    assert (scheduled.kind, scheduled.name) == (Kind.FWD, "sighand_struct")


@pytest.mark.image
def test_the_files_are_what_the_kernel_gives(debian_image: Image) -> None:
    found = facts(debian_image)
    if debian_image.release == FACTS["release"]:
        assert rendered(found) == (DATA / "bare-6.1.json").read_text(), "run tools/make_bare.py"
        assert layouts(debian_image) == BTF, "run tools/make_bare.py"
    else:  # the archive has moved on: checksums and addresses differ, what there is does not
        assert found["exports"].keys() == FACTS["exports"].keys()
        assert found.keys() == FACTS.keys()


@pytest.mark.image
def test_every_kept_member_lies_where_the_kernel_has_it(debian_image: Image) -> None:
    kept = [kind for kind in Btf(BTF) if kind.kind in (Kind.STRUCT, Kind.UNION) and kind.name]
    for kind in kept:
        whole = next(
            found for found in debian_image.btf.all(kind.name) if found.kind is kind.kind and found.size == kind.size
        )
        for member in kind.members:
            if member.name:
                found = whole.member(member.name)
                assert (member.bit_offset, member.bit_size) == (found.bit_offset, found.bit_size)
                assert member.type.declare() == found.type.declare()
    assert len(kept) > 100
