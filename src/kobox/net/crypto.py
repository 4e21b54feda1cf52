"""The kernel's crypto API by its sockets (AF_ALG): hashes, ciphers, authenticated ciphers, random numbers.

Every name that the kernel knows is usual here: ``sha256``, ``hmac(sha3-512)``, ``cbc(aes)``, ``gcm(aes)``, or a driver
of ``/proc/crypto``. It asks for the modules of a name by itself. Follows Documentation/crypto/userspace-if.rst and
include/uapi/linux/if_alg.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from kobox.errors import UsageError
from kobox.kernel.files import Files
from kobox.kernel.syscalls import Syscalls
from kobox.kernel.user_pages import UserPages
from kobox.net.sockets import open_socket

AF_ALG = 38
_SOCK_SEQPACKET, _MSG_MORE = 5, 0x8000
_SOL_ALG = 279
_SET_KEY, _SET_IV, _SET_OP, _SET_ASSOCIATED, _SET_TAG_SIZE = 1, 2, 3, 4, 5
_DECRYPT, _ENCRYPT = 0, 1
_ADDRESS = struct.Struct("<H14sII64s")
_CONTROL = struct.Struct("<Qii")
_MESSAGE = struct.Struct("<QI4xQQQQi4x")
_VECTOR, _U32 = struct.Struct("<QQ"), struct.Struct("<I")
_LONGEST_NAME, _LONGEST_DIGEST, _RANDOM = 63, 1024, 128
_PIECE = 1 << 15
"""Bytes given to the kernel at once: whole blocks of every cipher, and less than a socket holds."""
_WHOLE = 1 << 16
"""Bytes of an authenticated message, which the kernel takes as a whole."""


class Algorithm(NamedTuple):
    """One entry of ``/proc/crypto``; ``module`` is ``kernel`` for what is built in."""

    name: str
    driver: str
    module: str
    priority: int
    type: str


class Crypto:
    """The crypto API of one guest."""

    def __init__(self, syscalls: Syscalls) -> None:
        self._sys = syscalls

    def algorithms(self) -> list[Algorithm]:
        """What is registered now, newest first; names that nobody has asked for yet are not."""
        text = Files(self._sys).read("/proc/crypto").decode("latin-1")
        return [_algorithm(block) for block in text.split("\n\n") if block.strip()]

    def hash(self, name: str, data: bytes, *, key: bytes = b"") -> bytes:
        """The digest of ``data``; ``key`` for ``hmac(…)``, ``cmac(…)`` and the start value of a checksum."""
        with self._operation("hash", name, key) as operation:
            for piece, more in _pieces(data):
                operation.send(piece, more)
            return operation.receive(_LONGEST_DIGEST)

    def encrypt(self, name: str, data: bytes, *, key: bytes, iv: bytes = b"") -> bytes:
        """By a cipher without authentication: ``cbc(aes)``, ``ctr(aes)``, ``xts(aes)``. ``Errno`` where the length of
        ``data``, ``key`` or ``iv`` does not suit it."""
        return self._cipher(_ENCRYPT, name, data, key, iv)

    def decrypt(self, name: str, data: bytes, *, key: bytes, iv: bytes = b"") -> bytes:
        """Undo ``encrypt``."""
        return self._cipher(_DECRYPT, name, data, key, iv)

    def seal(
        self, name: str, data: bytes, *, key: bytes, iv: bytes, associated: bytes = b"", tag_size: int = 16
    ) -> bytes:
        """By an authenticated cipher (``gcm(aes)``, ``rfc7539(chacha20,poly1305)``): what is encrypted, then the tag
        over it and over ``associated``. At most 64 KiB together."""
        return self._authenticated(_ENCRYPT, name, data, key, iv, associated, tag_size)

    def unseal(
        self, name: str, data: bytes, *, key: bytes, iv: bytes, associated: bytes = b"", tag_size: int = 16
    ) -> bytes:
        """Undo ``seal``; ``Errno(EBADMSG)`` when a bit of anything is another one."""
        return self._authenticated(_DECRYPT, name, data, key, iv, associated, tag_size)

    def random(self, name: str, size: int, *, seed: bytes = b"") -> bytes:
        """Numbers of a generator: ``stdrng``, ``drbg_nopr_hmac_sha256``, ``jitterentropy_rng``. Some refuse a
        ``seed``."""
        data = b""
        with self._operation("rng", name, seed) as operation:
            while len(data) < size:
                data += operation.receive(min(size - len(data), _RANDOM))
        return data

    # -- sockets ------------------------------------------------------------------------------------------------

    @contextmanager
    def _operation(self, kind: str, name: str, key: bytes = b"", tag_size: int = 0) -> Iterator[_Operation]:
        """A socket that works on one message: the one that takes the algorithm's name gives it by ``accept``."""
        raw = name.encode()
        if len(raw) > _LONGEST_NAME:
            raise UsageError(f"the name of an algorithm has at most {_LONGEST_NAME} bytes, found {len(raw)}")
        window = self._sys.window
        with open_socket(self._sys, AF_ALG, _SOCK_SEQPACKET) as socket:
            window.clear()
            address = window.put(_ADDRESS.pack(AF_ALG, kind.encode(), 0, 0, raw))
            self._sys.checked(f"{kind} {name}", "bind", socket.descriptor, address, _ADDRESS.size)
            if key or kind == "rng":
                socket.setsockopt(_SOL_ALG, _SET_KEY, key)
            if tag_size:
                what, option = f"a tag of {tag_size} bytes", (_SOL_ALG, _SET_TAG_SIZE, 0, tag_size)
                self._sys.checked(what, "setsockopt", socket.descriptor, *option)
            with socket.accept() as accepted, UserPages(self._sys, _WHOLE + _PIECE) as pages:
                yield _Operation(self._sys, accepted.descriptor, pages)

    def _cipher(self, direction: int, name: str, data: bytes, key: bytes, iv: bytes) -> bytes:
        control = _control(_SET_OP, _U32.pack(direction))
        if iv:
            control += _control(_SET_IV, _U32.pack(len(iv)) + iv)
        done = b""
        with self._operation("skcipher", name, key) as operation:
            for piece, more in _pieces(data):
                operation.send(piece, more, control)
                done, control = done + operation.receive(len(piece)), b""
        return done

    def _authenticated(
        self, direction: int, name: str, data: bytes, key: bytes, iv: bytes, associated: bytes, tag_size: int
    ) -> bytes:
        if len(associated) + len(data) > _WHOLE:
            raise UsageError(f"an authenticated message of {len(associated) + len(data)} bytes, at most {_WHOLE}")
        control = _control(_SET_OP, _U32.pack(direction)) + _control(_SET_IV, _U32.pack(len(iv)) + iv)
        control += _control(_SET_ASSOCIATED, _U32.pack(len(associated)))
        room = len(associated) + max(0, len(data) + (tag_size if direction == _ENCRYPT else -tag_size))
        with self._operation("aead", name, key, tag_size) as operation:
            operation.send(associated + data, 0, control)
            return operation.receive(room)[len(associated) :]


class _Operation(NamedTuple):
    """The socket of one message. Its buffers are real pages: the kernel works on them in place."""

    syscalls: Syscalls
    descriptor: int
    pages: UserPages

    def send(self, data: bytes, flags: int, control: bytes = b"") -> None:
        window = self.syscalls.window
        window.clear()
        vector = window.put(_VECTOR.pack(self.pages.put(data), len(data)))
        message = _MESSAGE.pack(0, 0, vector, 1, window.put(control), len(control), 0)
        self.syscalls.checked("hand over data", "sendmsg", self.descriptor, window.put(message), flags)

    def receive(self, size: int) -> bytes:
        count = self.syscalls.checked("take the result", "recvfrom", self.descriptor, self.pages.address, size, 0, 0, 0)
        return self.pages.read(count)


def _pieces(data: bytes) -> Iterator[tuple[bytes, int]]:
    """The data in pieces, each with the flag that says whether more will come; of none an empty one."""
    for at in range(0, max(1, len(data)), _PIECE):
        yield data[at : at + _PIECE], _MSG_MORE if at + _PIECE < len(data) else 0


def _control(kind: int, data: bytes) -> bytes:
    """One control message, padded to eight bytes."""
    return _CONTROL.pack(_CONTROL.size + len(data), _SOL_ALG, kind) + data + bytes(-len(data) % 8)


def _algorithm(block: str) -> Algorithm:
    facts: Mapping[str, str] = {
        name.strip(): value.strip() for name, _, value in (line.partition(":") for line in block.splitlines())
    }
    return Algorithm(facts["name"], facts["driver"], facts["module"], int(facts["priority"]), facts["type"])
