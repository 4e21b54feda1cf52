"""``kobox readko``: text, JSON, exit codes, and that its documentation shows what it really prints."""

from __future__ import annotations

import json
import lzma
import re
import shlex
from pathlib import Path

import pytest

from builders import KoBuilder
from kobox.cli import main
from kobox.cli.readko import PARTS, printable

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs/readko.md"


@pytest.fixture
def hello(tmp_path: Path) -> str:
    """A module with something of everything."""
    builder = KoBuilder("hello").module(author="A <a@b>", description="greets", alias=["x*", "y"], import_ns="NS")
    builder.param("num", "int", "how many").param("puns", flags=1).note(".note.gnu.build-id", b"GNU", 3, b"\xc0\xff")
    builder.text(bytes(8)).export("f", crc=0xC0FFEE).export("g", gpl=True, namespace="HELLO")
    builder.reloc(".text", 1, 4, "_printk", -4).undefined("maybe", weak=True).version("_printk", 0x1234)
    return str(builder.signature(b"junk").write(tmp_path / "hello.ko"))


def shown(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(["readko", *args]) == 0
    return capsys.readouterr().out


def test_the_summary_tells_what_a_reader_asks_first(hello: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = dict(line.split(None, 1) for line in shown(capsys, hello).splitlines()[1:] if " " in line)
    assert lines["name"] == "hello"
    assert lines["license"] == "GPL"
    assert lines["parameters"] == "2: num, puns"
    assert lines["exports"] == "2 (1 GPL only): f, g"
    assert lines["imports"] == "3 (1 weak): param_ops_int, _printk, maybe"
    assert lines["entry"] == "init_module, cleanup_module; struct module of 896 bytes"
    assert lines["signature"].startswith("PKCS#7, 4 bytes, not verified here; wrong: the message can't be read")


def test_the_first_line_names_the_file_its_machine_and_compression(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = lzma.compress(KoBuilder().module().build())
    path = tmp_path / "x.ko.xz"
    path.write_bytes(packed)
    first = shown(capsys, str(path)).splitlines()[0]
    assert first == f"{path}: relocatable 64-bit x86_64, little endian, {len(packed):,} bytes, xz compressed"


def test_a_module_that_cannot_be_unloaded_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = KoBuilder().init_text().this_module().write(tmp_path / "stay.ko")
    assert "init_module, no exit (can't be unloaded); struct module" in shown(capsys, str(path))


def test_an_object_file_that_is_no_module_yet_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, str(KoBuilder().text().write(tmp_path / "x.o")))
    assert "none: no struct module in it" in text
    assert "(not said: taints the kernel)" in text


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("--modinfo", "description greets"),
        ("--params", "puns: int (0644, param_ops_int, unsafe)"),
        ("--exports", "0x00c0ffee any f"),
        ("--exports", "- GPL g HELLO"),
        ("--imports", "0x00001234 _printk"),
        ("--imports", "- maybe weak"),
        ("--versions", "0x00001234 _printk"),
        ("--signature", "trailer algo 0, hash 0, id_type 2, sig_len 4"),
        ("--sections", "1 .init.text PROGBITS 0x40 0x3 16 0 0 alloc execinstr"),
        ("--symbols", "2 0x0 8 OBJECT LOCAL .data num"),
        ("--relocs", "0x00000001 R_X86_64_PLT32 _printk -0x4"),
    ],
)
def test_each_part_is_shown_alone_when_asked_for(
    hello: str, option: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert line in [" ".join(row.split()) for row in shown(capsys, option, hello).splitlines()]


def test_several_parts_have_headings(hello: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "--params", "--exports", hello).splitlines()
    assert [line for line in lines if line.endswith(":") and " " not in line] == ["params:", "exports:"]


def test_an_empty_part_says_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(KoBuilder().text().write(tmp_path / "x.ko"))
    for part in ("modinfo", "params", "exports", "versions", "signature", "relocs"):
        assert shown(capsys, f"--{part}", path) == "(none)\n"


def test_everything_is_the_summary_and_all_parts(hello: str, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(shown(capsys, "--json", "--all", hello))
    assert list(document) == ["file", "name", "summary", *PARTS]
    text = shown(capsys, "--all", hello)
    assert all(f"\n{part}:\n" in text for part in PARTS)


def test_json_of_one_part_has_that_part_and_no_summary(hello: str, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(shown(capsys, "--json", "--params", hello))
    assert list(document) == ["file", "name", "params"]
    assert document["params"][0] == {
        "name": "num",
        "type": "int",
        "description": "how many",
        "perm": 0o644,
        "ops": "param_ops_int",
        "level": -1,
        "flags": 0,
        "arg": "num",
    }


def test_several_files_give_several_documents(hello: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "--json", "--exports", hello, hello)
    first, end = json.JSONDecoder().raw_decode(text)
    assert json.loads(text[end:]) == first


def test_a_file_that_is_no_module_is_one_line_and_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.ko"
    path.write_text("#!/bin/sh\n")
    assert main(["readko", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"kobox readko: {path}: is no ELF file: it starts with: found '#!/b', expected '\\x7fELF'; "
        "hint: it looks like a script\n"
    )


def test_one_bad_file_does_not_hide_the_others(hello: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.ko").write_bytes(b"\x7fELF")
    assert main(["readko", str(tmp_path / "none.ko"), str(tmp_path / "bad.ko"), hello]) == 1
    out, err = capsys.readouterr()
    assert "name         hello" in out
    assert [line.split(":")[1].strip()[-7:] for line in err.splitlines()] == ["none.ko", "/bad.ko"]
    assert "No such file or directory" in err


def test_a_files_text_has_no_power_over_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    builder = KoBuilder().modinfo(description="\x1b[2J\x07red\nline").section(".modinfo", b"author=\xff\0")
    text = shown(capsys, str(builder.write(tmp_path / "x.ko")))
    assert r"\x1b[2J\x07red\nline" in text
    assert r"author       \xff" in text


def test_printable_text_is_left_as_it_is() -> None:
    assert printable("Michał µ 日本") == "Michał µ 日本"
    assert printable("\u202e\x00\udce9") == r"\u202e\x00\xe9"


class TestDocumentation:
    text = DOCS.read_text()

    def test_examples_print_what_the_page_shows(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(ROOT)
        examples = re.findall(r"```console\n\$ (kobox .*)\n([^`]*)```", self.text)
        assert len(examples) == 4
        for command, output in examples:
            assert (command, shown(capsys, *shlex.split(command)[2:])) == (command, output)

    def test_every_option_is_on_the_page(self) -> None:
        assert set(re.findall(r"`--(\w+)`", self.text)) == {*PARTS, "all", "json"}

    def test_every_json_field_is_on_the_page_and_no_other(self, hello: str, capsys: pytest.CaptureFixture[str]) -> None:
        document = json.loads(shown(capsys, "--json", "--all", hello))
        chapters = dict(re.findall(r"### (\w+)\n(.*?)(?=\n### |\Z)", self.text, re.DOTALL))
        assert set(chapters) == document.keys() - {"file", "name"}
        for part, chapter in chapters.items():
            if part != "versions":
                fields = "".join(re.findall(r"^\| (`[^|]*) \|", chapter, re.MULTILINE))
                record = document[part][0] if isinstance(document[part], list) else document[part]
                assert sorted(re.findall(r"`(\w+)`", fields)) == sorted(record)
