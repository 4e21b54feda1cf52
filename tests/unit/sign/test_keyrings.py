"""Keyrings: the compiled-in list, lookups, what may be added."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from kobox.errors import Errno
from kobox.sign import BUILTIN, MACHINE, Keyrings, default_registry, load_certificate_list
from kobox.sign.keyrings import Key
from signing import EVERYTHING, ec_identity, rsa_identity, tbs_digest, trusting


def load(blob: bytes) -> tuple[tuple[Key, ...], list[tuple[int, str]]]:
    lines: list[tuple[int, str]] = []
    keys = load_certificate_list(
        blob, EVERYTHING, default_registry(), log=lambda level, text: lines.append((level, text))
    )
    return keys, lines


def test_a_list_is_certificates_one_after_the_other() -> None:
    keys, lines = load(rsa_identity().data + ec_identity().data)
    assert [key.description.partition(":")[0] for key in keys] == ["rsa key", "ec key"]
    assert lines == [(5, f"Loaded X.509 cert '{key.description}'") for key in keys]
    assert {key.ring for key in keys} == {BUILTIN}


def test_a_certificate_that_is_no_use_is_left_out_and_the_rest_taken() -> None:
    data = bytearray(rsa_identity().data)
    data[-1] ^= 1
    keys, lines = load(bytes(data) + ec_identity().data)
    assert [key.description.partition(":")[0] for key in keys] == ["ec key"]
    assert lines[0][1].startswith("Problem loading in-kernel X.509 certificate (-")


@pytest.mark.parametrize("end", [b"\x30", b"\x30\x81\x00\x00", b"\x30\x82\xff\xff"])
def test_a_broken_list_ends_where_it_breaks(end: bytes) -> None:
    keys, lines = load(ec_identity().data + end)
    assert len(keys) == 1
    assert lines[-1] == (3, "Problem parsing in-kernel X.509 certificate list")


def test_a_key_is_found_by_serial_and_issuer_or_by_its_identifier() -> None:
    rings = trusting(rsa_identity(), ec_identity())
    ring = rings.for_modules
    key = rings.machine[1]
    assert ring.find(key.identity, None) is rings.machine[1]
    assert ring.find(None, key.skid) is rings.machine[1]
    assert ring.find(key.identity, key.skid) is rings.machine[1]
    assert ring.find(b"nobody", None) is None
    with pytest.raises(Errno) as caught:
        ring.find(key.identity, b"another")
    assert caught.value.number == errno.EKEYREJECTED


def test_a_banned_certificate_cannot_be_added() -> None:
    banned = f"tbs:{tbs_digest(ec_identity()).hex()}"
    with pytest.raises(Errno) as caught:
        replace(Keyrings(algorithms=EVERYTHING), banned=frozenset({banned})).with_keys(MACHINE, [ec_identity().data])
    assert caught.value.number == errno.EKEYREJECTED
