"""The commands ``kobox sign``, ``kobox keygen`` and ``kobox verify``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from builders import KoBuilder
from kobox.cli import main
from kobox.ko import split_signature
from schemas import problems_of_command

MODULE = KoBuilder().build()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module and a key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KBUILD_SIGN_PIN", raising=False)
    (tmp_path / "m.ko").write_bytes(MODULE)
    assert main(["keygen", "A key", "--type", "p256"]) == 0
    return tmp_path


def test_a_key_a_signature_and_its_verification(here: Path, capsys) -> None:
    assert main(["sign", "--key", "MOK.priv", "--cert", "MOK.der", "m.ko"]) == 0
    assert "m.ko: signed" in capsys.readouterr().out
    assert main(["verify", "--only", "--key", "MOK.der", "m.ko"]) == 0
    assert "m.ko: verified on the given keys by 'A key: " in capsys.readouterr().out


def test_a_module_by_another_key_names_the_rings_and_what_to_enroll(here: Path, capsys) -> None:
    main(["sign", "--key", "MOK.priv", "--cert", "MOK.der", "m.ko"])
    main(["keygen", "Another", "--type", "p256", "--out", "other"])
    capsys.readouterr()
    assert main(["verify", "--only", "--key", "other.der", "m.ko"]) == 1
    said = capsys.readouterr().out
    assert "Required key not available (ENOKEY)" in said
    assert "asked .secondary_trusted_keys:\n    'Another: " in said
    assert "enroll the certificate of 'A key' with serial number" in said


def test_each_answer_in_json_is_what_the_schema_says(here: Path, capsys) -> None:
    capsys.readouterr()
    for words in (
        ["keygen", "B", "--type", "p256", "--out", "b", "--json"],
        ["sign", "--json", "--key", "MOK.priv", "--cert", "MOK.der", "m.ko", "absent.ko"],
        ["verify", "--json", "--only", "--key", "MOK.der", "m.ko", "absent.ko"],
        ["verify", "--json", "--only", "--key", "b.der", "m.ko"],
    ):
        main(words)
        assert problems_of_command(json.loads(capsys.readouterr().out), words[0]) == []


def test_the_words_of_sign_file_write_the_destination_and_the_signature(here: Path, capsys) -> None:
    capsys.readouterr()
    assert main(["sign", "-p", "sha256", "MOK.priv", "MOK.der", "m.ko", "out.ko"]) == 0
    assert capsys.readouterr().out == ""
    assert Path("m.ko").read_bytes() == MODULE
    trailer = split_signature(Path("out.ko").read_bytes())[1]
    assert trailer is not None
    assert trailer.message == Path("m.ko.p7s").read_bytes()


def test_a_detached_signature_is_appended_later(here: Path) -> None:
    assert main(["sign", "-d", "sha256", "MOK.priv", "MOK.pem", "m.ko"]) == 0
    assert Path("m.ko").read_bytes() == MODULE
    assert main(["sign", "-s", "m.ko.p7s", "sha256", "MOK.pem", "m.ko"]) == 0
    assert main(["verify", "--only", "--key", "MOK.pem", "m.ko"]) == 0


def test_what_is_appended_and_no_signature_is_told(here: Path, capsys) -> None:
    Path("noise").write_bytes(b"noise")
    assert main(["sign", "-s", "noise", "sha256", "MOK.pem", "m.ko"]) == 0
    assert "no kernel will take it" in capsys.readouterr().err


def test_stripping_gives_the_module_back(here: Path, capsys) -> None:
    main(["sign", "--key", "MOK.priv", "--cert", "MOK.der", "m.ko"])
    assert main(["sign", "--strip", "m.ko"]) == 0
    assert Path("m.ko").read_bytes() == MODULE
    assert main(["verify", "--only", "--key", "MOK.der", "m.ko"]) == 1
    assert "it is not signed" in capsys.readouterr().out


def test_a_passphrase_comes_from_a_file_or_the_environment(here: Path, monkeypatch, capsys) -> None:
    Path("secret").write_text("open sesame\n")
    assert main(["keygen", "C", "--type", "p256", "--out", "c", "--passphrase-file", "secret"]) == 0
    words = ["sign", "--key", "c.priv", "--cert", "c.der", "m.ko"]
    assert main(words) == 2
    assert "the key needs its passphrase" in capsys.readouterr().err
    assert main([*words, "--passphrase-file", "secret"]) == 0
    monkeypatch.setenv("KBUILD_SIGN_PIN", "open sesame")
    assert main(words) == 0


def test_a_private_key_is_its_owners_alone_and_is_not_overwritten(here: Path, capsys) -> None:
    assert os.stat("MOK.priv").st_mode & 0o777 == 0o600
    assert main(["keygen", "D"]) == 1
    assert "MOK.priv: is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["sign", "m.ko"],
        ["sign", "sha999", "MOK.priv", "MOK.der", "m.ko"],
        ["sign", "--strip", "--key", "MOK.priv", "m.ko"],
        ["verify", "--only", "m.ko"],
        ["verify", "--live", "--only", "m.ko"],
        ["keygen", "x", "--days", "0"],
    ],
)
def test_wrong_usage_exits_2(here: Path, words: list[str], capsys) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1
