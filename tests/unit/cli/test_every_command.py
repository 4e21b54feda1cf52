"""What holds for every command: each option it takes is in its help, its manual page and its completion."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kobox.cli import main
from kobox.cli.complete import complete
from kobox.cli.described import usage_of
from kobox.cli.kmod_options import KMOD_USAGES
from kobox.cli.man import page_of, title_of
from kobox.cli.modprobe import _OPTIONS
from kobox.cli.options import Usage, getopt_tables
from kobox.cli.table import COMMANDS, COMPAT
from needs import need_program

WITH_VERBS = [(name, verb.name) for name in COMMANDS for verb in (usage_of(name), *usage_of(name).verbs)]


def usage_named(name: str, full: str) -> Usage:
    usage = usage_of(name)
    return next(one for one in (usage, *usage.verbs) if one.name == full)


def help_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    try:
        code = main([*words, "--help"])
    except SystemExit as ended:  # argparse ends the process itself
        code = int(ended.code or 0)
    assert code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(("name", "full"), WITH_VERBS, ids=[full for _, full in WITH_VERBS])
def test_every_option_is_in_help_manual_page_and_completion(
    name: str, full: str, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = usage_named(name, full)
    said = help_of(full.split(), capsys)
    page = page_of(name).replace(r"\-", "-")
    offered = {word for word, _ in complete([*full.split(), "-"]).words}
    assert usage.options
    for option in usage.options:
        assert option.help, f"{full}: {option.names} has no help"
        for spelled in option.names:
            assert spelled in said
            assert rf"\fB{spelled}\fR" in page
            assert spelled in offered


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = help_of([name], capsys)
    assert "example" in said
    assert f"kobox {name}" in said.split("example", 1)[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_in_one_line_what_it_is_for(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert COMMANDS[name].help in capsys.readouterr().out
    assert usage_of(name).help


def test_the_tools_of_kmod_are_those_with_a_table_of_options() -> None:
    assert set(KMOD_USAGES) == COMPAT


def test_every_option_of_modprobe_does_something() -> None:
    keys = {option.key for option in KMOD_USAGES["modprobe"].options}
    assert keys - {"V", "h"} == set(_OPTIONS)


@pytest.mark.parametrize("name", sorted(COMPAT))
def test_no_letter_and_no_name_stands_for_two_options(name: str) -> None:
    options = KMOD_USAGES[name].options
    names = [spelled for option in options for spelled in option.names]
    assert len(names) == len(set(names))
    short, long = getopt_tables(options)
    assert len(short.replace(":", "")) + len(long) == len(names)


def test_manual_pages_are_accepted_by_every_reader_of_them(tmp_path: Path) -> None:
    need_program("mandoc", "groff")
    assert main(["man", "--dir", str(tmp_path)]) == 0
    pages = list(tmp_path.iterdir())
    assert {page.stem for page in pages} == {title_of(name) for name in (None, *COMMANDS)}
    for page in pages:
        for reader in (["mandoc", "-T", "lint", "-W", "warning"], ["groff", "-man", "-Tutf8", "-ww", "-z"]):
            done = subprocess.run([*reader, page], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), page.name


def test_a_page_keeps_what_roff_would_read_as_its_own(tmp_path: Path) -> None:
    need_program("mandoc")
    (tmp_path / "x.1").write_text(page_of("explain"))
    shown = subprocess.run(
        ["mandoc", "-T", "utf8", "-O", "width=200", tmp_path / "x.1"], capture_output=True, text=True, check=True
    ).stdout
    for line in usage_of("explain").epilog.splitlines():
        assert line.strip() in shown


def test_an_unknown_page_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["man", "nothing"]) == 2
    assert "no command 'nothing'" in capsys.readouterr().err


def test_completion_imports_nothing_heavy() -> None:
    """What costs time at each press of the key: the CPU, cryptography, what boots and loads. The records of
    ``kobox.kernel`` that clients of sessions share are light."""
    code = """
import sys
from kobox.cli.complete import complete
for name in {names!r}:
    complete([name, "-"])
    complete([name, ""])
heavy = {{"unicorn", "cryptography", "kobox.box", "kobox.kernel.loader", "kobox.bringup", "asyncio", "http.server"}}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code.format(names=list(COMMANDS))], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
