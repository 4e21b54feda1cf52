"""Signatures of PE images: real ones of the distribution, ones that sbsign makes, and broken ones."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from kobox.efi import siglist
from kobox.efi.authenticode import TBS_SHA256, carried_certificates, judge, read_image, signatures
from kobox.efi.shim import read_shim
from kobox.efi.siglist import Entry
from kobox.errors import BadFile
from kobox.sign.generate import Request, generate
from needs import lacking, need_program
from signing import make_identity

DEBIAN_SHIM = Path("/usr/lib/shim")


@pytest.fixture(params=["debian_root", "trixie_root"])
def kernel(request: pytest.FixtureRequest) -> Path:
    root: Path = request.getfixturevalue(request.param)
    return next(iter((root / "boot").glob("vmlinuz-*")))


@pytest.fixture
def shim() -> Path:
    found = DEBIAN_SHIM / "shimx64.efi.signed"
    if not found.is_file():
        lacking("this test needs Debian's shim; apt-packages.txt lists the packages")
    return found


@pytest.mark.image
def test_a_distributions_kernel_verifies_against_the_certificate_of_its_signature(kernel: Path) -> None:
    image = read_image(kernel.read_bytes(), kernel.name)
    (signature,) = signatures(image)
    assert signature.issuer == "Debian Secure Boot CA"
    assert signature.digest == image.digest(signature.hash_name)
    decision = judge(image, list(map(siglist.certificate, carried_certificates(image))), [])
    assert decision.allowed
    assert signature.signer in decision.by


@pytest.mark.image
def test_a_distributions_kernel_verifies_against_the_authority_inside_its_shim(kernel: Path, shim: Path) -> None:
    loader = read_shim(shim.read_bytes(), shim.name)
    image = read_image(kernel.read_bytes(), kernel.name)
    assert judge(image, loader.allowed, loader.banned).by.startswith("'Debian Secure Boot CA: ")
    assert not judge(image, [], loader.banned).allowed


def test_a_shim_verifies_against_the_authority_that_its_signature_brings(shim: Path) -> None:
    loader = read_shim(shim.read_bytes(), shim.name)
    authorities = [one for one in carried_certificates(loader.image) if b"Microsoft" in one]
    assert judge(loader.image, list(map(siglist.certificate, authorities)), []).allowed
    assert len(loader.banned) > 0


@pytest.mark.image
def test_no_flipped_byte_of_a_kernel_is_missed(kernel: Path) -> None:
    data = kernel.read_bytes()
    image = read_image(data, kernel.name)
    allowed = list(map(siglist.certificate, carried_certificates(image)))
    chance = random.Random(4)
    for _ in range(40):
        start, end = chance.choice(image.hashed)
        broken = bytearray(data)
        broken[chance.randrange(start, end)] ^= 1 << chance.randrange(8)
        try:
            assert not judge(read_image(bytes(broken), kernel.name), allowed, []).allowed
        except BadFile:
            continue


@pytest.mark.image
def test_the_hash_is_the_one_that_sbverify_finds(kernel: Path, tmp_path: Path) -> None:
    need_program("sbsign", "sbverify", "sbattach")
    made = generate(Request("an owner"))
    (tmp_path / "key").write_bytes(made.key_pem)
    (tmp_path / "cert").write_bytes(made.certificate_pem)
    signed = tmp_path / "signed"
    command = ["sbsign", "--key", tmp_path / "key", "--cert", tmp_path / "cert", "--output", signed, kernel]
    subprocess.run([*map(str, command)], check=True, capture_output=True)
    image = read_image(signed.read_bytes(), "signed")
    assert len(image.messages) == 2
    own = siglist.certificate(made.certificate_der)
    assert judge(image, [own], []).allowed
    assert subprocess.run(["sbverify", "--cert", tmp_path / "cert", signed], capture_output=True).returncode == 0
    assert not judge(image, [siglist.certificate(make_identity("stranger").data)], []).allowed
    assert judge(image, [own], [own]).why == "a certificate of its chain is banned"


@pytest.mark.image
def test_a_hash_allows_or_bans_whatever_the_signature_says(kernel: Path) -> None:
    image = read_image(kernel.read_bytes(), kernel.name)
    own = siglist.file_hash(image.digest())
    signers = list(map(siglist.certificate, carried_certificates(image)))
    assert judge(image, [own], []).allowed
    assert not judge(image, signers, [own]).allowed
    (signature,) = signatures(image)
    signed_part = Entry(TBS_SHA256, signature.certificates[0].tbs_digest or b"")
    assert "is banned" in judge(image, signers, [signed_part]).why


@pytest.mark.parametrize("data", [b"", b"MZ", b"\x7fELF" + bytes(100), b"MZ" + bytes(0x3A) + b"\xff" * 4 + bytes(64)])
def test_what_is_no_image_is_a_bad_file(data: bytes) -> None:
    with pytest.raises(BadFile):
        read_image(data, "file")


@pytest.mark.image
def test_mutated_images_and_shims_are_bad_files_or_refused(kernel: Path) -> None:
    data = kernel.read_bytes()
    image = read_image(data, kernel.name)
    start = int.from_bytes(data[0x3C:0x40], "little")
    end = len(data) - len(image.messages[0]) - 8
    allowed = list(map(siglist.certificate, carried_certificates(image)))
    chance = random.Random(5)
    for _ in range(400):
        broken = bytearray(data)
        for _ in range(chance.randrange(1, 5)):
            at = chance.randrange(start, start + 0x200) if chance.random() < 0.4 else chance.randrange(end, len(data))
            broken[at] = chance.randrange(256)
        for read in (read_image, read_shim):
            try:
                found = read(bytes(broken), "mutated")
                if read is read_image:
                    signatures(found)
                    carried_certificates(found)
                    judge(found, allowed, [siglist.file_hash(bytes(32))])
            except BadFile:
                continue
