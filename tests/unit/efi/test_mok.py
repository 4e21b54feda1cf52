"""``kobox mok`` and mokutil on the same machines: what is printed, exit codes, and the variables that are left."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kobox.cli import main
from kobox.efi import crypt, siglist
from kobox.efi.mokmanager import manage, mirror, pending
from kobox.efi.variables import BOOT, DB, DBX, SECURE_BOOT, SETUP_MODE, SHOWN, SIGNED, Variables, load, save, shim
from kobox.errors import BadFile
from kobox.sign.generate import Request as KeyRequest
from kobox.sign.generate import generate
from needs import need_program

CERTIFICATES = {
    name: generate(KeyRequest(name, kind)).certificate_der
    for name, kind in (("first", "rsa2048"), ("second", "p256"), ("vendor", "p384"), ("banned", "p256"))
}
HASH = "ab" * 32


def machine() -> Variables:
    found = Variables()
    found.store(SECURE_BOOT, b"\1", SHOWN)
    found.store(SETUP_MODE, b"\0", SHOWN)
    found.store(DB, siglist.encode([siglist.certificate(CERTIFICATES["vendor"])]), SIGNED)
    found.store(DBX, siglist.encode([siglist.file_hash(bytes.fromhex(HASH))]), SIGNED)
    found.store(shim("MokListRT"), siglist.encode([siglist.certificate(CERTIFICATES["second"])]), SHOWN)
    found.store(shim("MokListXRT"), siglist.encode([siglist.certificate(CERTIFICATES["banned"])]), SHOWN)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Certificates, and the same machine twice: ``ours`` and ``theirs``."""
    for name, data in CERTIFICATES.items():
        (tmp_path / f"{name}.der").write_bytes(data)
    (tmp_path / "hash").write_text(crypt.hash_password("password of mine", b"salt").text + "\n")
    (tmp_path / "empty.der").write_bytes(b"")
    for side in ("ours", "theirs"):
        save(tmp_path / side, machine())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ours(words: list[str], typed: str, monkeypatch: pytest.MonkeyPatch, capsys) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    capsys.readouterr()
    code = main(["mok", "--vars", "ours", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def theirs(words: list[str], typed: str) -> tuple[int, str, str]:
    environment = {**os.environ, "EFIVARFS_PATH": f"{os.getcwd()}/theirs/"}
    done = subprocess.run(
        ["mokutil", *words], input=typed, capture_output=True, text=True, env=environment, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("typed", "steps"),
    [
        ("", [["--sb-state"]]),
        ("", [["--list-enrolled"], ["--list-new"], ["--list-delete"], ["--db"], ["--dbx"], ["--pk"], ["--kek"]]),
        ("", [["--list-enrolled", "--mokx"], ["--list-sbat-revocations"]]),
        ("", [["--import", "first.der", "--hash-file", "hash"], ["--list-new"], ["--test-key", "first.der"]]),
        ("", [["--import", "first.der", "--hash-file", "hash"], ["--import", "first.der", "--hash-file", "hash"]]),
        ("", [["--import", *(f"{name}.der" for name in CERTIFICATES), "--hash-file", "hash"], ["--list-new"]]),
        ("", [["--import", "first.der", "--hash-file", "hash"], ["--delete", "first.der", "--hash-file", "hash"]]),
        ("", [["--delete", "second.der", "--hash-file", "hash"], ["--list-delete"], ["--revoke-delete"]]),
        ("", [["--delete", "first.der", "--hash-file", "hash"]]),
        ("", [["--import", "absent.der", "--hash-file", "hash"], ["--import", "empty.der", "--hash-file", "hash"]]),
        ("", [["--test-key", name + ".der"] for name in ("first", "second", "vendor", "banned", "absent", "empty")]),
        ("", [["--mokx", "--import", "first.der", "--hash-file", "hash"], ["--mokx", "--list-new"]]),
        ("", [["--mokx", "--import", "banned.der", "--hash-file", "hash"], ["--mokx", "--test-key", "banned.der"]]),
        ("", [["--mokx", "--delete", "banned.der", "--hash-file", "hash"], ["--mokx", "--list-delete"]]),
        ("", [["--import-hash", "cd" * 32, "--hash-file", "hash"], ["--list-new"], ["--import-hash", "abc"]]),
        ("", [["--import-hash", HASH, "--hash-file", "hash"]]),
        ("", [["--reset", "--hash-file", "hash"], ["--reset", "--mokx", "--hash-file", "hash"]]),
        ("", [["--set-verbosity", "true"], ["--set-fallback-verbosity", "true"], ["--set-fallback-noreboot", "true"]]),
        ("", [["--set-verbosity", "true"], ["--set-verbosity", "false"], ["--timeout", "5"], ["--timeout", "10"]]),
        ("", [["--timeout", "-1"], ["--clear-password"], ["--password", "--hash-file", "hash"]]),
        ("\n1\n2\n1\n3\n", [["--import", "first.der"]]),
        ("", [["--disable-validation"]]),
        ("short\nlong enough\nlong enough\n", [["--disable-validation"]]),
        ("twelve chars\ntwelve chars\n", [["--untrust-mok"]]),
        ("twelve chars\ntwelve chars\n", [["--ignore-db"]]),
    ],
)  # fmt: skip
def test_what_it_prints_and_leaves_is_what_mokutil_does(folder: Path, monkeypatch, capsys, typed, steps) -> None:
    need_program("mokutil")
    for words in steps:
        assert ours(words, typed, monkeypatch, capsys) == theirs(words, typed), words
        mine, other = load("ours"), load("theirs")
        if typed and shim("MokAuth") in mine:  # with a salt of its own
            assert all(crypt.unpack(side.pop(shim("MokAuth")).value).matches("1") for side in (mine, other))
        for toggle in ("MokSB", "MokDB", "MokListTrustedNew"):  # mokutil leaves its stack behind the password
            if shim(toggle) in mine:
                used = 8 + 2 * len(typed.split("\n")[-2])
                assert mine.pop(shim(toggle)).value[:used] == other.pop(shim(toggle)).value[:used]
        assert mine == other, words


def test_exported_certificates_are_those_that_mokutil_exports(folder: Path, monkeypatch, capsys) -> None:
    need_program("mokutil")
    assert ours(["--export"], "", monkeypatch, capsys) == (0, "", "")
    mine = {path.name: path.read_bytes() for path in folder.glob("MOK-*")}
    for path in folder.glob("MOK-*"):
        path.unlink()
    assert theirs(["--export"], "") == (0, "", "")
    assert mine == {path.name: path.read_bytes() for path in folder.glob("MOK-*")} != {}


def test_each_carries_out_what_the_other_asked_for(folder: Path, monkeypatch, capsys) -> None:
    need_program("mokutil")
    assert theirs(["--import", "first.der"], "a password\na password\n")[0] == 0
    found = load("theirs")
    (waiting,) = pending(found)
    assert waiting.title == "Enroll MOK"
    assert not waiting.check("another")
    (outcome,) = manage(found, lambda one, attempt: "a password")
    assert outcome.done
    mirror(found, [], [])
    save("theirs", found)
    assert theirs(["--test-key", "first.der"], "") == (1, "first.der is already enrolled\n", "")


@pytest.mark.parametrize("password", ["p", "twelve chars", "x" * 200, "größer"])
def test_password_hashes_are_those_of_openssl(password: str) -> None:
    need_program("openssl")
    for option, prefix in (("-6", "$6$"), ("-5", "$5$")):
        done = subprocess.run(
            ["openssl", "passwd", option, "-salt", "somesalt", "-stdin"],
            input=password, capture_output=True, text=True, check=True,
        )  # fmt: skip
        found = crypt.parse_hash(done.stdout.strip())
        assert found is not None
        assert found.text == done.stdout.strip()
        assert found.text.startswith(prefix)
        assert found.matches(password)
        assert not found.matches(password + "x")
        assert crypt.unpack(found.packed()) == found


@pytest.mark.parametrize("text", ["", "$6$", "$6$salt$short", "$6$rounds=x$a$b", "$1$a$b", "$6$a$" + "!" * 86])
def test_what_is_no_hash_is_refused(text: str) -> None:
    assert crypt.parse_hash(text) is None


def test_requests_of_every_kind_are_carried_out() -> None:
    auth = crypt.hash_password("secret").packed()
    keys = {name: siglist.encode([siglist.certificate(data)]) for name, data in CERTIFICATES.items()}
    found = machine()
    found.store(shim("MokList"), keys["second"], BOOT)
    for name, value in (("MokNew", keys["first"]), ("MokDel", keys["second"]), ("MokXNew", keys["banned"])):
        found.store(shim(name), value, SHOWN)
    for name in ("MokAuth", "MokDelAuth", "MokXAuth"):
        found.store(shim(name), auth, SHOWN)
    assert [one.title for one in manage(found, lambda one, attempt: "secret")] == [
        "Enroll MOK", "Delete MOK", "Enroll MOKX",
    ]  # fmt: skip
    assert found.value(shim("MokList")) == keys["first"]
    assert found.value(shim("MokListX")) == keys["banned"]
    mirror(found, [siglist.certificate(CERTIFICATES["vendor"])], [])
    assert found.value(shim("MokListRT")) == keys["vendor"] + keys["first"]
    assert found.value(shim("MokListTrustedRT")) == b"\1"
    assert shim("MokAuth") not in found


def test_three_wrong_passwords_end_a_request() -> None:
    found = machine()
    found.store(shim("MokNew"), siglist.encode([siglist.certificate(CERTIFICATES["first"])]), SHOWN)
    found.store(shim("MokAuth"), crypt.hash_password("secret").packed(), SHOWN)
    tried: list[int] = []

    def wrong(one: object, attempt: int) -> str:
        tried.append(attempt)
        return "guess"

    (outcome,) = manage(found, wrong)
    assert tried == [0, 1, 2]
    assert not outcome.done
    assert shim("MokList") not in found


def test_broken_signature_lists_are_bad_files() -> None:
    import random

    good = siglist.encode([siglist.certificate(data) for data in CERTIFICATES.values()])
    chance = random.Random(3)
    for _ in range(2000):
        broken = bytearray(good[: chance.randrange(len(good))] if chance.random() < 0.3 else good)
        for _ in range(chance.randrange(4)):
            if broken:
                broken[chance.randrange(len(broken))] = chance.randrange(256)
        try:
            siglist.decode(bytes(broken), "list")
        except BadFile:
            continue


def test_lists_come_back_as_they_were() -> None:
    entries = [
        siglist.certificate(CERTIFICATES["first"]),
        siglist.file_hash(bytes(32)),
        siglist.file_hash(b"\1" * 32),
        siglist.certificate(CERTIFICATES["second"]),
        siglist.file_hash(bytes(64)),
    ]
    assert siglist.decode(siglist.encode(entries), "list") == entries


def test_a_machine_is_not_made_over_another(folder: Path, capsys) -> None:
    assert main(["mok", "--vars", "ours", "--init"]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main(["mok", "--vars", "absent", "--sb-state"]) == 2
    assert "kobox mok --init makes one" in capsys.readouterr().err
    shutil.rmtree(folder / "ours")
