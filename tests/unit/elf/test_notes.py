"""Notes, and the build id among them."""

from __future__ import annotations

import pytest

from builders import KoBuilder
from kobox.elf import parse
from kobox.elf.notes import Note, build_id, notes_of
from kobox.errors import BadFile

BUILD_ID = ".note.gnu.build-id"


def test_the_build_id_is_the_gnu_note_of_type_3() -> None:
    builder = KoBuilder().note(BUILD_ID, b"Other", 3, b"no").note(BUILD_ID, b"GNU", 3, bytes.fromhex("c0ffee42"))
    assert build_id(parse(builder.build(), "x.ko")) == "c0ffee42"


def test_a_file_without_one_has_no_build_id() -> None:
    assert build_id(parse(KoBuilder().text().build(), "x.ko")) is None
    assert build_id(parse(KoBuilder().note(BUILD_ID, b"GNU", 1, b"abi!").build(), "x.ko")) is None


def test_fields_are_padded_to_four_bytes() -> None:
    elf = parse(KoBuilder().note(".note.Linux", b"Linux", 1, b"abcde").note(".note.Linux", b"L", 2, b"").build(), "x")
    section = elf.section(".note.Linux")
    assert section is not None
    assert list(notes_of(elf, section)) == [Note("Linux", 1, b"abcde"), Note("L", 2, b"")]


def test_a_note_that_is_longer_than_its_section_is_refused() -> None:
    elf = parse(KoBuilder().section(BUILD_ID, b"\4\0\0\0\xff\xff\xff\xff\3\0\0\0GNU\0", type=7).build(), "x.ko")
    with pytest.raises(BadFile, match=r"section 1 \(\.note\.gnu\.build-id\)"):
        build_id(elf)
