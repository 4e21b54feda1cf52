"""The keyrings of a running kernel, read from its own memory: whom it trusts now, and whom it has banned.

Keys that firmware brought, that were linked later or that went away are therefore what the guest says, not what Python
remembers. A ring is an associative array of keys and of other rings. Follows security/keys/keyring.c,
lib/assoc_array.c, include/keys/asymmetric-subtype.h and certs/blacklist.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from kobox.errors import GuestError
from kobox.sign.keyrings import BLACKLIST, BUILTIN, MACHINE, PLATFORM, SECONDARY, Key, Keyrings
from kobox.sign.keys import PublicKey

if TYPE_CHECKING:
    from kobox.kernel.guest import Guest

_RINGS = {
    BUILTIN: "builtin_trusted_keys",
    SECONDARY: "secondary_trusted_keys",
    MACHINE: "machine_trusted_keys",
    PLATFORM: "platform_trusted_keys",
    BLACKLIST: "blacklist_keyring",
}
"""Each ring's variable of the kernel; one that a kernel lacks was not built in."""

_META, _SHORTCUT, _SUBRING, _TAGS = 1, 2, 2, 3
"""Tags in the low bits of an array's pointers: to a node, to a shortcut; of a leaf: it is a keyring."""
_IDENTITY, _SKID = 0, 1
"""Where ``asymmetric_key_ids`` has serial number with issuer, and the subject key identifier."""
_CRYPTO, _IDS = 0, 2
"""``enum asymmetric_payload_bits``: indexes into a key's payload, ``asym_crypto`` and ``asym_key_ids``."""
_MOST_KEYS, _DEEPEST, _LONGEST = 65536, 64, 16 << 10


class Ring(NamedTuple):
    """A ring as it stands; ``keys`` are those in it and in rings linked to it."""

    name: str
    keys: tuple[Key, ...]


class GuestKeyrings:
    """Reads the rings of one guest, afresh each time."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def trusted(self, built: Keyrings) -> Keyrings:
        """The rings now. ``built`` says what does not change: algorithms, identifiers, which rings the kernel has.

        A kernel whose ring variables are not known by name trusts what it was built with.
        """
        if not self._address(BUILTIN):
            return built
        builtin = self.keys(BUILTIN)
        if built.secondary is None or not self._address(SECONDARY):
            reached: tuple[Key, ...] = ()
        else:
            reached = self.keys(SECONDARY)
        return replace(
            built,
            builtin=builtin,
            secondary=None if built.secondary is None else tuple(k for k in reached if k.ring == SECONDARY),
            machine=tuple(key for key in reached if key.ring == MACHINE),
            platform=None if built.platform is None else self.keys(PLATFORM),
            banned=frozenset(self.banned()),
        )

    def all(self) -> list[Ring]:
        """Every ring the kernel has, in the order in which they are asked."""
        return [Ring(name, self.keys(name)) for name in _RINGS if name != BLACKLIST and self._address(name)]

    def keys(self, name: str) -> tuple[Key, ...]:
        """The keys that can be reached from the ring of that name."""
        address = self._address(name)
        return tuple(self._keys_below(address, 0)) if address else ()

    def banned(self) -> Iterator[str]:
        """Descriptions in the blacklist ring: ``bin:`` or ``tbs:``, and a hash in hex."""
        address = self._address(BLACKLIST)
        for leaf, _ in self._leaves(address) if address else ():
            yield self._description(leaf)

    def _address(self, name: str) -> int:
        found = self._guest.symbols.get(_RINGS[name])
        return self._guest.read_uint(found) if found is not None else 0

    def _keys_below(self, ring: int, depth: int) -> Iterator[Key]:
        """Keys of a ring first, then those of the rings linked to it, as a search goes."""
        if depth > _DEEPEST:
            raise GuestError("keyrings nested without an end")
        name = self._description(ring)
        leaves = list(self._leaves(ring))
        for leaf, is_ring in leaves:
            if not is_ring and (key := self._key(leaf, name)) is not None:
                yield key
        for leaf, is_ring in leaves:
            if is_ring:
                yield from self._keys_below(leaf, depth + 1)

    def _leaves(self, ring: int) -> Iterator[tuple[int, bool]]:
        """(address of a ``struct key``, whether it is a keyring) of all that a ring links to."""
        guest = self._guest
        layouts = guest.layouts
        slots = layouts.field("assoc_array_node", "slots")
        waiting = [guest.view("key", ring)["keys.root"]]
        seen = 0
        while waiting:
            pointer = waiting.pop()
            if not pointer:
                continue
            seen += 1
            if seen > _MOST_KEYS:
                raise GuestError("a keyring without an end")
            if not pointer & _META:
                yield pointer & ~_TAGS, bool(pointer & _SUBRING)
            elif pointer & _SHORTCUT:
                waiting.append(guest.view("assoc_array_shortcut", pointer & ~_TAGS)["next_node"])
            else:
                data = guest.read((pointer & ~_TAGS) + slots.offset, slots.size)
                waiting += [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]

    def _description(self, key: int) -> str:
        guest = self._guest
        return guest.read_cstr(guest.view("key", key)["description"]).decode("latin-1")

    def _key(self, address: int, ring: str) -> Key | None:
        """An asymmetric key; None for another kind, or one that is dead."""
        guest = self._guest
        view = guest.view("key", address)
        kind = guest.read_cstr(guest.view("key_type", view["type"])["name"])
        if kind != b"asymmetric":
            return None
        payload = view.at("payload")
        crypto, ids = (guest.read_uint(payload + 8 * index) for index in (_CRYPTO, _IDS))
        if not crypto or not ids:
            return None
        public = guest.view("public_key", crypto)
        data = guest.read(public["key"], min(public["keylen"], _LONGEST))
        algorithm = guest.read_cstr(public["pkey_algo"]).decode("latin-1")
        listed = guest.view("asymmetric_key_ids", ids).at("id")
        identity, skid = (self._id(guest.read_uint(listed + 8 * index)) for index in (_IDENTITY, _SKID))
        return Key(ring, self._description(address), PublicKey(algorithm, data), identity or b"", skid)

    def _id(self, address: int) -> bytes | None:
        if not address:
            return None
        view = self._guest.view("asymmetric_key_id", address)
        return self._guest.read(view.at("data"), view["len"])
