"""Digests and keys: what verifies, and which errno what does not answers."""

from __future__ import annotations

import errno
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kobox.errors import Errno
from kobox.sign.keys import Algorithms, PublicKey, Signature
from signing import EVERYTHING, Identity, der, make_identity, rsa_identity

BODY = b"what is signed"


def rsa_key(identity: Identity) -> PublicKey:
    numbers = identity.key.public_key().public_numbers()
    n = numbers.n.to_bytes(numbers.n.bit_length() // 8 + 1, "big")
    return PublicKey("rsa", der(0x30, der(2, n), der(2, numbers.e.to_bytes(3, "big"))))


def signature_of(identity: Identity, hash_name: str = "sha256") -> Signature:
    kind = "rsa" if isinstance(identity.key, rsa.RSAPrivateKey) else "ecdsa"
    return Signature(kind, hash_name, identity.sign(BODY, hash_name), EVERYTHING.digest(hash_name, BODY))


def answer(key: PublicKey, signature: Signature, algorithms: Algorithms = EVERYTHING) -> int:
    with pytest.raises(Errno) as caught:
        key.verify(signature, algorithms)
    return caught.value.number


@pytest.mark.parametrize("hash_name", ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"])
def test_an_rsa_signature_verifies_with_each_digest(hash_name: str) -> None:
    identity = rsa_identity()
    signature = signature_of(identity, hash_name)
    assert rsa_key(identity).verify(signature, EVERYTHING) is None
    other = signature._replace(digest=bytes(len(signature.digest or b"")))
    assert answer(rsa_key(identity), other) == errno.EKEYREJECTED


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
@pytest.mark.parametrize("hash_name", ["sha1", "sha256", "sha384", "sha512"])
def test_an_ecdsa_signature_verifies_on_each_curve(curve: ec.EllipticCurve, hash_name: str) -> None:
    identity = make_identity("ec", ec.generate_private_key(curve))
    numbers = identity.key.public_key().public_numbers()
    size = (curve.key_size + 7) // 8
    point = b"\4" + numbers.x.to_bytes(size, "big") + numbers.y.to_bytes(size, "big")
    key = PublicKey(f"ecdsa-nist-p{curve.key_size}", point)
    signature = signature_of(identity, hash_name)
    assert key.verify(signature, EVERYTHING) is None
    changed = bytes([(signature.digest or b"\0")[0] ^ 1]) + (signature.digest or b"")[1:]
    assert answer(key, signature._replace(digest=changed)) == errno.EKEYREJECTED
    assert answer(PublicKey(key.algorithm, b"\2" + point[1:]), signature) == errno.EINVAL
    assert answer(PublicKey(key.algorithm, point[:-1] + bytes([point[-1] ^ 1])), signature) == errno.EINVAL
    assert answer(key, signature._replace(value=b"\x30\x00")) == errno.EBADMSG


def test_broken_rsa_signatures_answer_as_the_kernel_does() -> None:
    identity = rsa_identity()
    key, good = rsa_key(identity), signature_of(identity)
    assert answer(key, good._replace(value=good.value[:-1])) == errno.EINVAL
    assert answer(key, good._replace(value=b"\xff" * 256)) == errno.EINVAL
    assert answer(key, good._replace(value=b"\0" * 255 + b"\2")) in (errno.EINVAL, errno.EBADMSG)
    assert answer(key, good._replace(hash_name="sha512", digest=hashlib.sha512(BODY).digest())) == errno.EBADMSG
    assert answer(PublicKey("rsa", b"\x30\x00"), good) == errno.EBADMSG


def test_a_key_of_a_size_the_kernel_lacks_is_einval() -> None:
    identity = make_identity("odd", rsa.generate_private_key(65537, 1600))
    assert answer(rsa_key(identity), signature_of(identity)) == errno.EINVAL


def test_another_kind_of_key_rejects_and_a_missing_algorithm_is_named_by_its_errno() -> None:
    identity = rsa_identity()
    good = signature_of(identity)
    assert answer(rsa_key(identity), good._replace(key_type="ecdsa")) == errno.EKEYREJECTED
    without = Algorithms(built_in=frozenset({"sha256"}), modular=frozenset())
    assert answer(rsa_key(identity), good, without) == errno.ENOENT
    assert answer(rsa_key(identity), good._replace(digest=None)) == errno.ENOPKG
    assert answer(PublicKey("dsa", b""), good._replace(key_type="dsa")) == errno.ENOPKG


def test_algorithms_come_from_a_kernel_s_configuration() -> None:
    config = {"CONFIG_CRYPTO_SHA256": "y", "CRYPTO_SHA512": "m", "CONFIG_CRYPTO_RSA": "y"}
    algorithms = Algorithms.from_config(config)
    assert algorithms.built_in == {"sha224", "sha256", "rsa"}
    assert algorithms.modular == {"sha384", "sha512"}
    assert algorithms.digest("sha256", b"a", b"b") == hashlib.sha256(b"ab").digest()
    assert algorithms.digest("md5", b"") is None


def test_an_algorithm_that_is_a_module_is_asked_for_by_its_alias() -> None:
    asked: list[str] = []

    def load(alias: str) -> bool:
        asked.append(alias)
        return alias == "crypto-sha512"

    algorithms = Algorithms(load=load)
    assert algorithms.has("sha512")
    assert not algorithms.has("sha384")
    assert asked == ["crypto-sha512", "crypto-sha384"]
