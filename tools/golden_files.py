"""The files that the cases of a recording name: its own modules, the image's, and mutants made from the image's."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from kobox.elf import parse
from kobox.ko import decompress, split_signature

MARKER = b"~Module signature appended~\n"


class Unavailable(Exception):
    """A file that cannot be had here, and why."""


class CaseFiles:
    """``root``: the recording's directory. ``modules``: the image's tree of modules, None on bare."""

    def __init__(self, root: Path, modules: Path | None, recipes: Mapping[str, str]) -> None:
        self.root, self.modules, self.recipes = root, modules, dict(recipes)

    def __call__(self, name: str) -> bytes:
        if name.startswith("image:"):
            return self.image_module(name.removeprefix("image:"))
        if name in self.recipes:
            return self.made(self.recipes[name])
        path = self.root / name
        if not path.is_file():
            raise Unavailable(f"{path} does not exist, and the case says no recipe for it")
        return path.read_bytes()

    def image_module(self, name: str) -> bytes:
        if self.modules is None:
            raise Unavailable(f"{name} is a module of the distribution: it takes an image")
        stem = name.removesuffix(".ko")
        for path in sorted(self.modules.rglob("*.ko*")):
            if path.name.partition(".ko")[0] == stem:
                return bytes(decompress(path.read_bytes(), path.name))
        raise Unavailable(f"{self.modules} has no {name}")

    def made(self, recipe: str) -> bytes:
        """Follow a recipe: ``image:NAME.ko: what was done to it``."""
        source, name, what = recipe.split(":", 2)
        if source != "image":
            raise Unavailable(f"recipe {recipe!r} starts from something else than an image's module")
        for pattern, make in _RECIPES:
            if re.search(pattern, what):
                return make(self.image_module(name))
        raise Unavailable(f"nobody knows how to make: {recipe}")


def flip_text_byte(data: bytes) -> bytes:
    section = parse(data, "module").section(".text")
    if section is None or section.size == 0:
        raise Unavailable("the module has no .text to change")
    changed = bytearray(data)
    changed[section.offset + section.size // 2] ^= 0xFF
    return bytes(changed)


def flip_signature_bit(data: bytes) -> bytes:
    """The RSA value is the last thing in the PKCS#7 message, which ends 12 bytes before the marker."""
    changed = bytearray(data)
    changed[len(data) - len(MARKER) - 12 - 64] ^= 1
    return bytes(changed)


def unsigned(data: bytes) -> bytes:
    return bytes(split_signature(data)[0])


def resigned(data: bytes) -> bytes:
    """Signed anew by a key that nobody trusts, made on the spot."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

    body = unsigned(data)
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody trusts this key")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), random.getrandbits(64) + 1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    options = [
        pkcs7.PKCS7Options.DetachedSignature,
        pkcs7.PKCS7Options.NoAttributes,
        pkcs7.PKCS7Options.NoCerts,
        pkcs7.PKCS7Options.Binary,
    ]
    signing = pkcs7.PKCS7SignatureBuilder().set_data(body).add_signer(certificate, key, hashes.SHA256())
    message = signing.sign(Encoding.DER, options)
    trailer = bytes((0, 0, 2, 0, 0, 0, 0, 0)) + len(message).to_bytes(4, "big")
    return body + message + trailer + MARKER


def stripped(data: bytes) -> bytes:
    program = shutil.which("strip")
    if program is None:
        raise Unavailable("strip of binutils is not installed")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "module.ko")
        path.write_bytes(data)
        subprocess.run([program, "--strip-debug", path], check=True, capture_output=True)
        return path.read_bytes()


def other_vermagic(data: bytes) -> bytes:
    """Without signature, and with another release in the first word of its vermagic."""
    body = unsigned(data)
    found = re.search(rb"\bvermagic=[^ ]*?(\d)[^\d ]* ", body)
    if found is None:
        raise Unavailable("the module has no vermagic with a release")
    at = found.start(1)
    return body[:at] + (b"9" if body[at : at + 1] != b"9" else b"8") + body[at + 1 :]


_RECIPES: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
    (r"one byte of \.text changed", flip_text_byte),
    (r"bit of the RSA signature flipped", flip_signature_bit),
    (r"re-signed by the untrusted key", resigned),
    (r"signature removed", unsigned),
    (r"strip --strip-debug", stripped),
    (r"wrong vermagic, unsigned", other_vermagic),
)
