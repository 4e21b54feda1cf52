"""Signing: the bytes are those of the kernel's sign-file, each takes what the other made, and files stay whole."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from builders import KoBuilder
from kobox.errors import BadFile, UsageError
from kobox.ko import compress, decompress, format_of, split_signature
from kobox.sign import certificate_of, verify_signature
from kobox.sign.files import attaching, change_file, change_files, module_files, signing, stripping, write_anew
from kobox.sign.generate import KINDS, Request, generate
from kobox.sign.private import HASHES, parse_private_key
from kobox.sign.signing import Signer
from needs import lacking, need_program
from signing import EVERYTHING

MODULE = KoBuilder().build()
MADE = {kind: generate(Request(f"test {kind}", kind)) for kind in ("rsa2048", "p256", "p384")}


def signer(kind: str = "rsa2048", hash_name: str = "sha256", by_key_id: bool = False) -> Signer:
    made = MADE[kind]
    return Signer.of(parse_private_key(made.key_pem, "key", None), made.certificate_der, hash_name, by_key_id)


def trusting_the_key(kind: str):
    from kobox.sign import MACHINE, Keyrings

    return Keyrings(algorithms=EVERYTHING).with_keys(MACHINE, [MADE[kind].certificate_der])


@pytest.fixture(scope="module")
def sign_file() -> str:
    found = sorted(Path("/usr/lib").glob("linux-kbuild-*/scripts/sign-file"))
    if not found:
        lacking("this test needs sign-file of linux-kbuild; apt-packages.txt lists the packages")
    return str(found[0])


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    for kind, made in MADE.items():
        (tmp_path / f"{kind}.priv").write_bytes(made.key_pem)
        (tmp_path / f"{kind}.pem").write_bytes(made.certificate_pem)
        (tmp_path / f"{kind}.der").write_bytes(made.certificate_der)
    (tmp_path / "m.ko").write_bytes(MODULE)
    return tmp_path


def run(*words: str | Path, **more: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(word) for word in words], capture_output=True, env={**os.environ, **more}, check=False)


@pytest.mark.parametrize("hash_name", sorted(HASHES))
@pytest.mark.parametrize("by_key_id", [False, True])
def test_an_rsa_signature_is_the_bytes_of_sign_file(
    keys: Path, sign_file: str, hash_name: str, by_key_id: bool
) -> None:
    flags = ["-k"] if by_key_id else []
    done = run(
        sign_file, *flags, hash_name, keys / "rsa2048.priv", keys / "rsa2048.pem", keys / "m.ko", keys / "theirs"
    )
    assert done.returncode == 0, done.stderr
    outcome = change_file(str(keys / "m.ko"), signing(signer("rsa2048", hash_name, by_key_id)), str(keys / "ours"))
    assert outcome.what == "signed"
    assert (keys / "ours").read_bytes() == (keys / "theirs").read_bytes()


@pytest.mark.parametrize("kind", ["rsa2048", "p256", "p384"])
@pytest.mark.parametrize("hash_name", ["sha256", "sha384", "sha512"])
def test_what_sign_file_signs_verifies_here(keys: Path, sign_file: str, kind: str, hash_name: str) -> None:
    assert run(sign_file, hash_name, keys / f"{kind}.priv", keys / f"{kind}.pem", keys / "m.ko").returncode == 0
    assert verify_signature((keys / "m.ko").read_bytes(), trusting_the_key(kind)).trusted


@pytest.mark.parametrize("kind", ["rsa2048", "p256", "p384"])
@pytest.mark.parametrize("hash_name", ["sha256", "sha384", "sha512", "sha3-256"])
def test_openssl_and_the_kernels_rules_take_what_is_signed_here(keys: Path, kind: str, hash_name: str) -> None:
    need_program("openssl")
    from kobox.sign.signing import append

    message = signer(kind, hash_name).sign(MODULE)
    (keys / "sig").write_bytes(message)
    done = run(
        "openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", keys / "sig", "-content", keys / "m.ko",
        "-certfile", keys / f"{kind}.pem", "-noverify", "-out", os.devnull,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if not hash_name.startswith("sha3"):  # kernels before 6.7 have no number for it, and say so (ENOPKG)
        assert verify_signature(append(MODULE, message), trusting_the_key(kind)).trusted


def test_a_signature_that_is_there_is_replaced_or_signed_along(keys: Path) -> None:
    file = str(keys / "m.ko")
    change_file(file, signing(signer()))
    once = Path(file).read_bytes()
    assert change_file(file, signing(signer())).what == "signed again"
    assert Path(file).read_bytes() == once
    change_file(file, signing(signer(), keep=True))
    body, _ = split_signature(Path(file).read_bytes())
    assert bytes(body) == once


@pytest.mark.parametrize("kind", ["xz", "gzip", "zstd"])
def test_a_compressed_module_is_signed_inside_and_stays_compressed(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "m.ko.packed"
    file.write_bytes(compress(MODULE, kind))
    change_file(str(file), signing(signer()))
    packed = file.read_bytes()
    assert format_of(packed) == kind
    assert verify_signature(bytes(decompress(packed, "m")), trusting_the_key("rsa2048")).trusted
    change_file(str(file), stripping)
    assert bytes(decompress(file.read_bytes(), "m")) == MODULE


def test_the_kernels_own_xz_takes_what_is_packed_here(tmp_path: Path) -> None:
    need_program("xz")
    (tmp_path / "m.xz").write_bytes(compress(MODULE, "xz"))
    listed = run("xz", "--robot", "--list", "-vv", tmp_path / "m.xz").stdout.decode()
    assert "CRC32" in listed
    assert "dict=1MiB" in listed


def test_a_signature_made_elsewhere_is_appended(keys: Path) -> None:
    change_file(str(keys / "m.ko"), attaching(signer().sign(MODULE)))
    assert verify_signature((keys / "m.ko").read_bytes(), trusting_the_key("rsa2048")).trusted


def test_many_files_are_signed_and_one_that_is_broken_is_told(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.ko", "sub/b.ko"):
        (tmp_path / name).write_bytes(MODULE)
    (tmp_path / "c.ko.xz").write_bytes(compress(MODULE, "xz")[:-9])
    (tmp_path / "notes.txt").write_text("no module")
    files = module_files([str(tmp_path)], lambda name: ".ko" in name)
    outcomes = list(change_files(files, signing(signer())))
    assert [Path(one.file).name for one in outcomes] == ["a.ko", "c.ko.xz", "b.ko"]
    assert [bool(one.error) for one in outcomes] == [False, True, False]
    assert (tmp_path / "c.ko.xz").read_bytes() == compress(MODULE, "xz")[:-9]


def test_a_file_keeps_its_mode_and_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "m.ko").write_bytes(MODULE)
    (tmp_path / "m.ko").chmod(0o640)
    (tmp_path / "link.ko").symlink_to("m.ko")
    change_file(str(tmp_path / "link.ko"), signing(signer()))
    assert (tmp_path / "link.ko").is_symlink()
    assert (tmp_path / "m.ko").stat().st_mode & 0o777 == 0o640
    assert split_signature((tmp_path / "m.ko").read_bytes())[1] is not None


def test_nothing_is_left_beside_a_file_that_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        write_anew(str(tmp_path / "m.ko"), b"x")
    assert list(tmp_path.iterdir()) == []


def test_stripping_what_is_not_signed_changes_nothing(keys: Path) -> None:
    before = (keys / "m.ko").stat().st_ino
    assert change_file(str(keys / "m.ko"), stripping).what == "was not signed"
    assert (keys / "m.ko").stat().st_ino == before


def test_a_key_of_another_certificate_signs_nothing() -> None:
    key = parse_private_key(MADE["p256"].key_pem, "key", None)
    with pytest.raises(UsageError, match="does not match"):
        Signer.of(key, MADE["rsa2048"].certificate_der, "sha256")


@pytest.mark.parametrize(("passphrase", "error"), [(None, "needs its passphrase"), ("wrong", "not the passphrase")])
def test_an_encrypted_key_needs_its_passphrase(passphrase: str | None, error: str) -> None:
    made = generate(Request("encrypted", "p256"), "secret")
    with pytest.raises(UsageError, match=error):
        parse_private_key(made.key_pem, "key", passphrase)
    assert parse_private_key(made.key_pem, "key", "secret").family == "ecdsa"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("rsa3072", "rsa4096")])
def test_a_made_certificate_has_what_shim_and_kernels_look_for(tmp_path: Path, kind: str) -> None:
    need_program("openssl")
    made = generate(Request("a key", kind, modules_only=True))
    (tmp_path / "c.der").write_bytes(made.certificate_der)
    shown = run("openssl", "x509", "-inform", "DER", "-in", tmp_path / "c.der", "-noout", "-text").stdout.decode()
    for needed in ("CA:FALSE", "Digital Signature", "Code Signing, 1.3.6.1.4.1.2312.16.1.2", "Subject Key Identifier"):
        assert needed in shown
    assert certificate_of(made.certificate_pem, "pem") == made.certificate_der
    strict = run("openssl", "x509", "-inform", "DER", "-in", tmp_path / "c.der", "-noout", "-fingerprint", "-sha1")
    assert made.fingerprint == strict.stdout.decode().partition("=")[2].strip().replace(":", "").lower()


@pytest.mark.parametrize("in_message", [False, True])
def test_a_flipped_bit_is_refused_or_changes_nothing_that_is_loaded(in_message: bool) -> None:
    """A few bits of the message are nobody's (the list of digests ahead of the signer): the kernel passes over them."""
    from kobox.sign.signing import append

    data = append(MODULE, signer().sign(MODULE))
    rings = trusting_the_key("rsa2048")
    chance = random.Random(1)
    for _ in range(1000):
        at = chance.randrange(len(MODULE) * 8, len(data) * 8) if in_message else chance.randrange(len(MODULE) * 8)
        broken = bytearray(data)
        broken[at // 8] ^= 1 << at % 8
        verdict = verify_signature(bytes(broken), rings)
        assert not verdict.trusted or (in_message and broken[: verdict.length] == MODULE), at


def test_broken_keys_and_certificates_are_one_line(tmp_path: Path) -> None:
    chance = random.Random(2)
    made = MADE["p256"]
    for _ in range(300):
        for data in (made.key_pem, made.certificate_der, made.certificate_pem):
            broken = bytearray(data)
            for _ in range(chance.randrange(1, 4)):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            cut = bytes(broken[: chance.randrange(len(broken))] if chance.random() < 0.3 else broken)
            try:
                if data is made.key_pem:
                    parse_private_key(cut, "key", None)
                else:
                    Signer.of(parse_private_key(made.key_pem, "key", None), certificate_of(cut, "cert"), "sha256", True)
            except (BadFile, UsageError):
                continue
