"""The kernel's trusted keyrings as records: who may vouch for a module, and what must never.

``Keyrings`` holds the rings a module's signature is looked up in, as certs/system_keyring.c links them: the secondary
ring also reaches the built-in and the machine (MOK) keys; the platform ring (firmware db) is asked last. Lookups follow
crypto/asymmetric_keys/asymmetric_type.c, the list format certs/ and x509_loader.c.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from kobox.errors import Errno
from kobox.sign import oids
from kobox.sign.keys import Algorithms, PublicKey
from kobox.sign.x509 import parse_certificate

BUILTIN, SECONDARY, MACHINE, PLATFORM, BLACKLIST = (
    ".builtin_trusted_keys",
    ".secondary_trusted_keys",
    ".machine",
    ".platform",
    ".blacklist",
)


class Key(NamedTuple):
    """A trusted certificate's key, in the ring of that name. ``identity`` and ``skid`` are what signatures name it by
    (see ``x509.Certificate``)."""

    ring: str
    description: str
    public: PublicKey
    identity: bytes
    skid: bytes | None


@dataclass(frozen=True)
class Keyring:
    """Keys in the order they are searched. ``name`` is the ring asked, a key knows the ring it lies in."""

    name: str
    keys: tuple[Key, ...] = ()

    @cached_property
    def _by_id(self) -> dict[bytes, Key]:
        found: dict[bytes, Key] = {}
        for key in self.keys:
            found.setdefault(key.identity, key)
            if key.skid is not None:
                found.setdefault(key.skid, key)
        return found

    def find(self, identity: bytes | None, skid: bytes | None) -> Key | None:
        """The key with this serial number and issuer (or key identifier). EKEYREJECTED when both are given and
        disagree.
        """
        wanted = identity if identity is not None else skid
        if not wanted:
            raise Errno(errno.EINVAL, "an empty key identifier")
        key = self._by_id.get(wanted)
        if key is not None and identity is not None and skid is not None and key.skid != skid:
            raise Errno(errno.EKEYREJECTED, f"{key.description}: its key identifier is another")
        return key


@dataclass(frozen=True)
class Keyrings:
    """Every key a kernel trusts, and what it bans.

    ``platform`` is None for a kernel built without that ring, ``secondary`` None for one without that.
    ``banned`` holds lines of the blacklist ring: ``tbs:HEX`` (a certificate's signed part) and ``bin:HEX`` (SHA-256 of
    a file).
    """

    builtin: tuple[Key, ...] = ()
    secondary: tuple[Key, ...] | None = ()
    machine: tuple[Key, ...] = ()
    platform: tuple[Key, ...] | None = ()
    banned: frozenset[str] = frozenset()
    algorithms: Algorithms = field(default_factory=Algorithms)
    registry: oids.Registry = field(default_factory=oids.default_registry)

    @cached_property
    def for_modules(self) -> Keyring:
        """The ring a module is checked against first."""
        if self.secondary is None:
            return Keyring(BUILTIN, self.builtin)
        return Keyring(SECONDARY, (*self.secondary, *self.builtin, *self.machine))

    @cached_property
    def for_firmware_keys(self) -> Keyring | None:
        """The ring that is asked when the first knows no key."""
        return None if self.platform is None else Keyring(PLATFORM, self.platform)

    def bans_file(self, sha256: bytes) -> bool:
        return f"bin:{sha256.hex()}" in self.banned

    def bans_certificate(self, tbs_digest: bytes) -> bool:
        return f"tbs:{tbs_digest.hex()}" in self.banned

    def with_keys(self, ring: str, certificates: Iterable[bytes]) -> Keyrings:
        """A copy with these DER certificates added to the ring of that name, as a key enrolled at boot would be."""
        added = tuple(self._key(ring, data) for data in certificates)
        if ring == BUILTIN:
            return replace(self, builtin=self.builtin + added)
        if ring == MACHINE:
            return replace(self, machine=self.machine + added)
        if ring == PLATFORM:
            return replace(self, platform=(self.platform or ()) + added)
        return replace(self, secondary=(self.secondary or ()) + added)

    def _key(self, ring: str, data: bytes) -> Key:
        return load_key(ring, data, self.algorithms, self.registry, self.bans_certificate)


def load_key(
    ring: str,
    data: bytes,
    algorithms: Algorithms,
    registry: oids.Registry,
    is_banned: Callable[[bytes], bool] = lambda digest: False,
    log: Callable[[int, str], None] = lambda level, text: None,
) -> Key:
    """One DER certificate as a key of ``ring``; a banned one is refused with EKEYREJECTED."""
    certificate = parse_certificate(data, algorithms, registry, is_banned, log)
    if certificate.blacklisted:
        raise Errno(errno.EKEYREJECTED, f"{certificate.subject} is blacklisted")
    return Key(ring, certificate.description, certificate.key, certificate.identity, certificate.skid)


def load_certificate_list(
    blob: bytes,
    algorithms: Algorithms,
    registry: oids.Registry,
    ring: str = BUILTIN,
    log: Callable[[int, str], None] = lambda level, text: None,
) -> tuple[Key, ...]:
    """The keys of a kernel's compiled-in list: certificates one after the other, each longer than 255 bytes.

    As the kernel does, a certificate that cannot be used is logged and left out, and a broken list ends where it
    breaks.
    """
    keys = []
    at = 0
    while at < len(blob):
        size = int.from_bytes(blob[at + 2 : at + 4], "big") + 4
        if len(blob) - at < 4 or blob[at : at + 2] != b"\x30\x82" or size > len(blob) - at:
            log(3, "Problem parsing in-kernel X.509 certificate list")
            break
        try:
            key = load_key(ring, bytes(blob[at : at + size]), algorithms, registry, log=log)
        except Errno as refused:
            log(3, f"Problem loading in-kernel X.509 certificate ({-refused.number})")
        else:
            log(5, f"Loaded X.509 cert '{key.description}'")
            keys.append(key)
        at += size
    return tuple(keys)
