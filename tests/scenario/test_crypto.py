"""The kernel's crypto API, by the distribution's modules, against Python's own results."""

from __future__ import annotations

import hashlib
import hmac
import random
import zlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.cmac import CMAC

from kobox.box import Kernel
from kobox.errors import Errno, UsageError

pytestmark = pytest.mark.image

_random = random.Random(6)
DATA = _random.randbytes(100_003)
KEY, IV, NONCE = _random.randbytes(32), _random.randbytes(16), _random.randbytes(12)

HASHES = {
    "md5": "md5", "sha1": "sha1", "sha224": "sha224", "sha256": "sha256", "sha384": "sha384", "sha512": "sha512",
    "sha3-224": "sha3_224", "sha3-256": "sha3_256", "sha3-384": "sha3_384", "sha3-512": "sha3_512",
    "blake2b-512": "blake2b",
}  # fmt: skip
"""The kernel's name and Python's."""


@pytest.fixture(scope="module", params=["debian_root", "trixie_root"])
def linux_root(request: pytest.FixtureRequest) -> Path:
    """Later kernels serve programs only the algorithms of a short list: AF_ALG is on its way out."""
    root: Path = request.getfixturevalue(request.param)
    return root


def modules_for(kernel: Kernel, name: str) -> tuple[str, ...]:
    return next(request.modules for request in kernel.autoloaded if request.name == f"crypto-{name}")


def crc32c(data: bytes) -> int:
    """Castagnoli's polynomial, bit by bit."""
    value = 0xFFFF_FFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F6_3B78 if value & 1 else 0)
    return value ^ 0xFFFF_FFFF


@pytest.mark.parametrize("name", HASHES)
@pytest.mark.parametrize("size", [0, 1, 64, len(DATA)])
def test_a_digest_is_pythons(linux: Kernel, name: str, size: int) -> None:
    assert linux.crypto.hash(name, DATA[:size]) == hashlib.new(HASHES[name], DATA[:size]).digest()


@pytest.mark.parametrize("name", ["md5", "sha1", "sha256", "sha512", "sha3-512"])
def test_an_authentication_code_is_pythons(linux: Kernel, name: str) -> None:
    assert linux.crypto.hash(f"hmac({name})", DATA, key=KEY) == hmac.digest(KEY, DATA, HASHES[name])


def test_a_code_by_a_block_cipher_is_cryptographys(linux: Kernel) -> None:
    theirs = CMAC(algorithms.AES(KEY))
    theirs.update(DATA)
    assert linux.crypto.hash("cmac(aes)", DATA, key=KEY) == theirs.finalize()


def test_checksums_are_those_of_other_implementations(linux: Kernel) -> None:
    """``crc32`` starts with the key and inverts nothing; ``crc32c`` does both."""
    inverted = int.from_bytes(linux.crypto.hash("crc32", DATA, key=b"\xff" * 4), "little") ^ 0xFFFF_FFFF
    assert inverted == zlib.crc32(DATA)
    assert linux.crypto.hash("crc32c", DATA[:5000]) == crc32c(DATA[:5000]).to_bytes(4, "little")


@pytest.mark.parametrize("size", [16, 99_200])
@pytest.mark.parametrize("bits", [128, 256])
@pytest.mark.parametrize("mode", ["cbc", "ctr", "ecb"])
def test_a_cipher_is_cryptographys(linux: Kernel, mode: str, bits: int, size: int) -> None:
    data, key = DATA[:size], KEY[: bits // 8]
    iv = b"" if mode == "ecb" else IV
    theirs = {"cbc": modes.CBC(IV), "ctr": modes.CTR(IV), "ecb": modes.ECB()}[mode]
    secret = linux.crypto.encrypt(f"{mode}(aes)", data, key=key, iv=iv)
    encryptor = Cipher(algorithms.AES(key), theirs).encryptor()
    assert secret == encryptor.update(data) + encryptor.finalize()
    assert linux.crypto.decrypt(f"{mode}(aes)", secret, key=key, iv=iv) == data


def test_a_cipher_for_disks_is_cryptographys(linux: Kernel) -> None:
    key = KEY + bytes(reversed(KEY))
    encryptor = Cipher(algorithms.AES(key), modes.XTS(IV)).encryptor()
    theirs = encryptor.update(DATA[:512]) + encryptor.finalize()
    assert linux.crypto.encrypt("xts(aes)", DATA[:512], key=key, iv=IV) == theirs


AUTHENTICATED = {
    "gcm(aes)": AESGCM(KEY),
    "rfc7539(chacha20,poly1305)": ChaCha20Poly1305(KEY),
}


@pytest.mark.parametrize("size", [0, 1, 40_000])
@pytest.mark.parametrize("name", AUTHENTICATED)
def test_an_authenticated_cipher_is_cryptographys(linux: Kernel, name: str, size: int) -> None:
    data, head = DATA[:size], b"not secret, but fixed"
    sealed = linux.crypto.seal(name, data, key=KEY, iv=NONCE, associated=head)
    assert sealed == AUTHENTICATED[name].encrypt(NONCE, data, head)
    assert linux.crypto.unseal(name, sealed, key=KEY, iv=NONCE, associated=head) == data


def test_ccm_is_cryptographys(linux: Kernel) -> None:
    """The kernel wants RFC 3610's counter block: how long the length is, then the nonce."""
    block = bytes((15 - len(NONCE) - 1,)) + NONCE + bytes(15 - len(NONCE))
    sealed = linux.crypto.seal("ccm(aes)", DATA[:999], key=KEY, iv=block, associated=b"head")
    assert sealed == AESCCM(KEY).encrypt(NONCE, DATA[:999], b"head")


@pytest.mark.parametrize("place", [0, -1])
def test_a_changed_bit_is_found(linux: Kernel, place: int) -> None:
    sealed = bytearray(linux.crypto.seal("gcm(aes)", b"pay 10", key=KEY, iv=NONCE))
    sealed[place] ^= 1
    with pytest.raises(Errno, match="EBADMSG"):
        linux.crypto.unseal("gcm(aes)", bytes(sealed), key=KEY, iv=NONCE)


def test_a_generator_gives_what_is_asked_for_and_not_the_same_twice(linux: Kernel) -> None:
    first, second = linux.crypto.random("stdrng", 300), linux.crypto.random("stdrng", 300)
    assert len(first) == len(second) == 300
    assert first != second
    assert len(set(linux.crypto.random("jitterentropy_rng", 64))) > 16


def test_a_name_brings_its_modules(linux: Kernel) -> None:
    linux.crypto.hash("blake2b-512", b"")
    linux.crypto.encrypt("ctr(serpent)", bytes(16), key=KEY, iv=IV)
    assert modules_for(linux, "blake2b-512") == ("blake2b_generic",)
    assert "serpent_generic" in modules_for(linux, "serpent")
    (found,) = (one for one in linux.crypto.algorithms() if one.driver == "blake2b-512-generic")
    assert (found.name, found.module, found.type) == ("blake2b-512", "blake2b_generic", "shash")


def test_a_driver_may_be_named(linux: Kernel) -> None:
    linux.modprobe("sha3_generic")
    assert linux.crypto.hash("sha3-256-generic", DATA) == hashlib.sha3_256(DATA).digest()


def test_what_the_kernel_refuses_is_an_error(linux: Kernel) -> None:
    with pytest.raises(Errno, match="hash nosuch"):
        linux.crypto.hash("nosuch", b"")
    with pytest.raises(Errno, match="EINVAL"):
        linux.crypto.encrypt("cbc(aes)", bytes(16), key=bytes(5), iv=IV)
    with pytest.raises(Errno, match="EINVAL"):
        linux.crypto.encrypt("cbc(aes)", bytes(15), key=KEY, iv=IV)
    with pytest.raises(UsageError, match="at most 63 bytes"):
        linux.crypto.hash("x" * 64, b"")
    with pytest.raises(UsageError, match="at most 65536"):
        linux.crypto.seal("gcm(aes)", bytes(1 << 17), key=KEY, iv=NONCE)
