"""What completion offers at each place of a command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import KoBuilder
from depot_roots import DepotRoot
from kobox.cli.complete import complete, main
from kobox.image.store import Added
from paths import EXAMPLES

HELLO = str(EXAMPLES / "hello.ko")


def words(*line: str) -> list[str]:
    return [word for word, _ in complete(line).words]


@pytest.fixture
def root(tmp_path: Path) -> str:
    tree = DepotRoot(tmp_path, "6.1.0").module("kernel/snd-pcm.ko").module("kernel/ext4.ko")
    tree.module("kernel/hello.ko", content=Path(HELLO).read_bytes())
    tree.conf("proc/modules", "veth 4096 0 - Live 0x0\n").write()
    return str(tmp_path)


def test_commands_come_first() -> None:
    assert words("modp") == ["modprobe"]
    assert "run" in words("")
    assert words("no-such-command", "") == []


def test_verbs_follow_their_command_and_have_their_own_options() -> None:
    assert words("kernel", "") == ["add", "list", "show", "remove"]
    assert "--debian" in words("kernel", "add", "--")
    assert "--debian" not in words("kernel", "list", "--")


def test_a_choice_offers_its_words_in_both_forms() -> None:
    assert words("run", "--loader", "") == ["kobox", "kernel"]
    assert words("run", "--loader=ke") == ["--loader=kernel"]
    assert words("depmod", "--index-order", "p") == ["parents-first"]


def test_added_images_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    added = Added("6.1.0-9", "deb", "a package", "", "", "", "", "", "", 0.0)
    monkeypatch.setattr("kobox.image.store.list_images", lambda: (added,))
    assert words("run", "--image", "") == ["6.1.0-9", "bare"]
    assert words("kernel", "show", "6.") == ["6.1.0-9"]


def test_modules_and_releases_are_those_of_the_root(root: str) -> None:
    assert words("modprobe", "--root", root, "") == ["ext4", "hello", "snd_pcm"]
    assert words("modprobe", f"--root={root}", "-S", "") == ["6.1.0"]
    assert words("modprobe", "-a", "--root", root, "ext4", "s") == []
    assert words("depmod", "--root", root, "") == ["6.1.0"]


def test_what_is_removed_is_what_is_loaded(root: str) -> None:
    assert words("modprobe", "-r", "--root", root, "") == ["veth"]


def test_parameters_are_those_of_the_module(root: str) -> None:
    assert "my_param=" in words("run", HELLO, "")
    assert words("run", HELLO, "loud=1", "my") == ["my_param="]
    assert "my_param=" in words("modprobe", "--root", root, "hello", "")
    assert words("run", "/no/such/file.ko", "") == []


def test_what_a_hostile_file_names_is_not_offered(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    builder = (
        KoBuilder("odd").text().modinfo(("parm", "$(reboot):x"), ("parm", "a b:x"), ("parm", "good:a\x1b[2Jb\tc\nd"))
    )
    file = builder.write(tmp_path / "odd.ko")
    assert main(["run", str(file), ""]) == 0
    assert capsysbinary.readouterr().out == b"\ngood=\ta [2Jb c d\n"


def test_files_are_left_to_the_shell() -> None:
    assert complete(["run", ""]).files == "modules"
    assert complete(["run", "--root", ""]).files == "dirs"
    assert complete(["modprobe", "-C", ""]).files == "files"
    assert complete(["modprobe", "--dirname="]).files == "dirs"


def test_clusters_of_letters_are_read_as_getopt_reads_them(root: str) -> None:
    assert words("modprobe", "-vnS", "") == words("modprobe", "-S", "")
    assert words("modprobe", f"-nd{root}", "") == ["ext4", "hello", "snd_pcm"]


def test_behind_two_dashes_nothing_is_an_option(root: str) -> None:
    assert words("modprobe", "--root", root, "--", "-") == []


def test_an_option_that_takes_two_words_gets_both(root: str) -> None:
    assert words("explain", "--root", root, "--upgrade", "") == ["6.1.0"]
    assert words("explain", "--root", root, "--upgrade", "6.1.0", "") == ["6.1.0"]
    assert words("explain", "--upgrade", "6.1.0", "6.1.0", "--li") == ["--live"]
