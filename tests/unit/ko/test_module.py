"""A module as a whole: reading files, names, struct module, laziness."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import KoBuilder
from kobox.errors import BadFile
from kobox.ko import module_name, parse_module, read_module


def test_a_file_is_read_whole_and_may_go_away(tmp_path: Path) -> None:
    path = KoBuilder("hello").module().export("f").write(tmp_path / "hello.ko")
    module = read_module(path)
    path.unlink()
    assert (module.name, [export.name for export in module.exports]) == ("hello", ["f"])
    assert (module.file, module.file_size) == (str(path), len(module.data))


def test_an_empty_file_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "empty.ko").touch()
    with pytest.raises(BadFile, match=r"empty\.ko: the file is empty"):
        read_module(tmp_path / "empty.ko")


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_module(tmp_path / "none.ko")


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/foo-bar.ko", "foo_bar"), ("snd-pcm.ko.xz", "snd_pcm"), ("x.ko.zst", "x"), ("x.ko.gz", "x"), ("x", "x")],
)
def test_a_files_name_gives_the_modules_name(path: str, name: str) -> None:
    assert module_name(path) == name


def test_the_name_in_modinfo_is_preferred_to_the_files() -> None:
    assert parse_module(KoBuilder("inner").module().build(), "outer-file.ko").name == "inner"
    assert parse_module(KoBuilder().text().build(), "outer-file.ko").name == "outer_file"


def test_dependencies_and_namespaces_come_from_modinfo() -> None:
    module = parse_module(KoBuilder().module(depends="a,b", import_ns=["X", "Y"]).build(), "x.ko")
    assert (module.depends, module.import_ns) == (("a", "b"), ("X", "Y"))
    assert parse_module(KoBuilder().module().build(), "x.ko").depends == ()


def test_struct_module_tells_where_init_and_exit_go() -> None:
    builder = KoBuilder().module()
    own = parse_module(builder.build(), "x.ko").this_module
    assert own is not None
    assert (own.size, own.section) == (896, builder.index_of(".gnu.linkonce.this_module"))
    assert (own.init, own.exit) == ("init_module", "cleanup_module")
    assert own.slots == ((312, "init_module"), (848, "cleanup_module"))


def test_a_module_without_exit_is_seen() -> None:
    own = parse_module(KoBuilder().init_text().this_module().build(), "x.ko").this_module
    assert own is not None
    assert (own.init, own.exit) == ("init_module", None)


def test_an_object_file_before_modpost_has_no_struct_module() -> None:
    assert parse_module(KoBuilder().text().build(), "x.o").this_module is None


def test_the_signature_is_no_part_of_the_elf_file_but_of_the_data() -> None:
    plain = KoBuilder("hello").module().build()
    module = parse_module(KoBuilder("hello").module().signature(b"sig").build(), "x.ko")
    assert bytes(module.elf.data) == plain
    assert bytes(module.data).startswith(plain + b"sig")


def test_parts_are_read_once() -> None:
    module = parse_module(KoBuilder().module().export("f").build(), "x.ko")
    assert module.exports is module.exports
    assert module.elf.symbols is module.elf.symbols


def test_a_module_cannot_be_changed() -> None:
    module = parse_module(KoBuilder().module().build(), "x.ko")
    with pytest.raises(AttributeError):
        module.file = "y.ko"  # type: ignore[misc]
