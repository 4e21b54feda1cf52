"""Mutants made from an image's module by their recipe."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from tools.golden_files import CaseFiles

from builders import KoBuilder
from kobox.elf import parse
from kobox.sign import Keyrings, verify_signature
from needs import need_program
from signing import EVERYTHING, rsa_identity, signed, trusting

RINGS = trusting(rsa_identity())


@pytest.fixture
def image(tmp_path: Path) -> tuple[Path, bytes]:
    """A tree with one signed, compressed module."""
    built = KoBuilder()
    built.section(".text", b"\x90" * 64, flags=6)
    data = signed(built.modinfo(vermagic="6.1.0-1-x SMP mod_unload ").build(), rsa_identity())
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel/sample-mod.ko.gz").write_bytes(gzip.compress(data))
    return tmp_path, data


def made(image: tuple[Path, bytes], what: str) -> bytes:
    recipes = {"ko/mut/x.ko": f"image:sample-mod.ko: {what}"}
    return CaseFiles(Path("/nowhere"), image[0], recipes)("ko/mut/x.ko")


def test_an_image_s_module_is_found_and_unpacked(image: tuple[Path, bytes]) -> None:
    assert CaseFiles(Path("/nowhere"), image[0], {})("image:sample-mod.ko") == image[1]


@pytest.mark.parametrize("what", ["module with one byte of .text changed", "one bit of the RSA signature flipped"])
def test_a_tampered_module_keeps_a_signature_that_does_not_verify(image: tuple[Path, bytes], what: str) -> None:
    data = made(image, what)
    assert len(data) == len(image[1])
    assert sum(a != b for a, b in zip(data, image[1], strict=True)) == 1
    assert verify_signature(data, RINGS).number == 129


def test_a_re_signed_module_is_signed_by_nobody_known(image: tuple[Path, bytes]) -> None:
    data = made(image, "module re-signed by the untrusted key")
    assert verify_signature(data, Keyrings(algorithms=EVERYTHING)).number == 126


def test_an_unsigned_module_and_one_of_another_release_have_no_signature(image: tuple[Path, bytes]) -> None:
    plain = made(image, "module with its signature removed")
    other = made(image, "module with wrong vermagic, unsigned")
    assert image[1].startswith(plain)
    assert verify_signature(plain, RINGS).number == 61
    assert sum(a != b for a, b in zip(plain, other, strict=True)) == 1
    assert b"vermagic=6.1.0-9-x SMP" in other


def test_a_stripped_module_loses_its_signature(image: tuple[Path, bytes]) -> None:
    need_program("strip")
    data = made(image, "module after strip --strip-debug (loses signature)")
    assert verify_signature(data, RINGS).number == 61
    assert parse(data, "x.ko").section(".text") is not None
