"""The machine owner's side of Secure Boot: what mokutil asks for and shows, over variables of a directory.

Texts and exit codes are those of mokutil 0.6.0, because people and scripts look for them; ``MokManager`` is
``mokmanager``, which carries out at boot what is asked for here.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from kobox.efi import crypt, siglist
from kobox.efi.siglist import Entry
from kobox.efi.variables import DB, DBX, KEPT, SECURE_BOOT, SETUP_MODE, Key, Variables, shim
from kobox.errors import BadFile, Errno
from kobox.sign.keyrings import load_key
from kobox.sign.keys import Algorithms
from kobox.sign.oids import default_registry
from kobox.sign.x509_text import is_certificate, text_of

FAILED = 255
PASSWORD_SIZE, TOGGLE_PASSWORD_SIZE = (1, 256), (8, 16)
_TRIES = 3
TOGGLE = struct.Struct("<II32s")
"""State, length of the password, the password in UTF-16: MokSB, MokDB, MokListTrustedNew."""
MOK_LIST, MOK_LIST_X = shim("MokListRT"), shim("MokListXRT")


class Request(Enum):
    """What can be asked of MokManager: the variable with the list, and the one with the password's hash."""

    ENROLL = ("MokNew", "MokAuth")
    DELETE = ("MokDel", "MokDelAuth")
    ENROLL_X = ("MokXNew", "MokXAuth")
    DELETE_X = ("MokXDel", "MokXDelAuth")

    @property
    def list(self) -> Key:
        return shim(self.value[0])

    @property
    def auth(self) -> Key:
        return shim(self.value[1])

    @property
    def reverse(self) -> Request:
        return _REVERSE[self]


_REVERSE = {
    Request.ENROLL: Request.DELETE,
    Request.DELETE: Request.ENROLL,
    Request.ENROLL_X: Request.DELETE_X,
    Request.DELETE_X: Request.ENROLL_X,
}


class Presence(NamedTuple):
    """A list in which a request looks for the key, whether it has to be there, and what is said then."""

    place: Key
    wanted: bool
    text: str


_CHECKS: dict[Request, tuple[Presence, ...]] = {
    Request.ENROLL: (
        Presence(DB, False, "{file} is already in db"),
        Presence(MOK_LIST, False, "{file} is already enrolled"),
        Presence(shim("MokNew"), False, "{file} is already in the enrollment request"),
        Presence(DBX, False, "{file} is blocked in dbx"),
        Presence(MOK_LIST_X, False, "{file} is blocked in MokListXRT"),
    ),
    Request.DELETE: (
        Presence(MOK_LIST, True, "{file} is not in MokList"),
        Presence(shim("MokDel"), False, "{file} is already in the deletion request"),
    ),
    Request.ENROLL_X: (
        Presence(MOK_LIST_X, False, "{file} is already in MokListX"),
        Presence(shim("MokXNew"), False, "{file} is already in the MokX enrollment request"),
    ),
    Request.DELETE_X: (
        Presence(MOK_LIST_X, True, "{file} is not in MokListX"),
        Presence(shim("MokXDel"), False, "{file} is already in the MokX deletion request"),
    ),
}


class Secret(NamedTuple):
    """Where a request's password comes from: a hash that somebody made, or a function that asks for one line."""

    given: crypt.Hash | None
    ask: Callable[[str], str | None]


class Mok:
    """mokutil's verbs over ``variables``. ``out`` and ``err`` take lines; each verb returns the exit code."""

    def __init__(
        self,
        variables: Variables,
        secret: Secret,
        out: Callable[[str], None],
        err: Callable[[str], None],
        trusted: Callable[[bytes], bool] = lambda skid: False,
    ) -> None:
        self.variables, self._secret, self._out, self._err = variables, secret, out, err
        self._trusted = trusted
        """Whether the kernel's built-in ring has a key with this identifier."""

    # -- requests ---------------------------------------------------------------------------------------------------

    def request(self, request: Request, files: Sequence[str]) -> int:
        """Ask for certificates to be enrolled or deleted."""
        certificates = []
        for file in files:
            try:
                data = Path(file).read_bytes()
            except OSError:
                self._err(f"Failed to get file status, {file}")
                return FAILED
            certificates.append((file, data))
        wanted: list[Entry] = []
        for file, data in certificates:
            if not is_certificate(data):
                self._err(f"Abort!!! {file} is not a valid x509 certificate in DER format")
                return FAILED
            if request is Request.ENROLL and self._is_trusted(data):
                self._out(f"Already in kernel trusted keyring. Skip {file}")
                continue
            entry = siglist.certificate(data)
            refused = self._refusal(request, entry)
            if refused is None:
                wanted.append(entry)
            elif self._take_back(request.reverse, entry):
                self._out(f"Removed {file} from {request.reverse.list.name}")
            else:
                self._out(f"SKIP: {refused.format(file=file)}")
        return self._issue(request, wanted) if wanted else 0

    def request_hash(self, request: Request, text: str) -> int:
        """Ask for a hash of an image, in hex, to be enrolled or deleted."""
        try:
            entry = siglist.file_hash(bytes.fromhex(text))
        except ValueError:
            return FAILED
        if self._refusal(request, entry) is not None:
            self._out("Skip hash")
            return 0
        return self._issue(request, [entry])

    def reset(self, request: Request) -> int:
        """Ask for a list to be emptied: a password without a list."""
        hashed = self._password_hash()
        if hashed is None:
            self._err("Failed to issue a reset request")
            return FAILED
        self.variables.pop(request.list, None)
        self.variables.store(request.auth, hashed.packed(), KEPT)
        return 0

    def revoke(self, request: Request) -> int:
        for key in (request.list, request.auth):
            self.variables.pop(key, None)
        return 0

    def toggle(self, name: str, state: int) -> int:
        """Ask for MokSB (validation), MokDB (use of db) or MokListTrusted to be switched."""
        self._out(f"password length: {TOGGLE_PASSWORD_SIZE[0]}~{TOGGLE_PASSWORD_SIZE[1]}")
        password = self._ask(*TOGGLE_PASSWORD_SIZE)
        if password is None:
            self._err("Abort")
            return FAILED
        value = TOGGLE.pack(state, len(password), password.encode("utf-16-le"))
        self.variables.store(shim(name), value, KEPT)
        return 0

    def password(self, clear: bool = False) -> int:
        """Ask for MokManager's own password to be set or cleared."""
        hashed = None if clear else self._password_hash()
        if hashed is None and not clear:
            return FAILED
        self.variables.store(shim("MokPW"), hashed.packed() if hashed is not None else bytes(_AUTH_SIZE), KEPT)
        return 0

    def _issue(self, request: Request, entries: list[Entry]) -> int:
        hashed = self._password_hash()
        if hashed is None:
            return FAILED
        before = self.variables.value(request.list)
        self.variables.store(request.list, siglist.encode(entries) + before, KEPT)
        self.variables.store(request.auth, hashed.packed(), KEPT)
        return 0

    def _refusal(self, request: Request, entry: Entry) -> str | None:
        for check in _CHECKS[request]:
            if self._has(check.place, entry) is not check.wanted:
                return check.text
        return None

    def _has(self, place: Key, entry: Entry) -> bool:
        return any(one.kind == entry.kind and one.data == entry.data for one in self._entries(place))

    def _entries(self, place: Key) -> list[Entry]:
        try:
            return siglist.decode(self.variables.value(place), place.name)
        except BadFile:
            return []

    def _take_back(self, request: Request, entry: Entry) -> bool:
        if not self._has(request.list, entry):
            return False
        rest = [one for one in self._entries(request.list) if (one.kind, one.data) != (entry.kind, entry.data)]
        if rest:
            self.variables.store(request.list, siglist.encode(rest), KEPT)
        else:
            self.revoke(request)
        return True

    def _is_trusted(self, certificate: bytes) -> bool:
        try:
            key = load_key("", certificate, Algorithms.every(), default_registry())
        except Errno:
            return False
        return key.skid is not None and self._trusted(key.skid)

    # -- passwords --------------------------------------------------------------------------------------------------

    def _password_hash(self) -> crypt.Hash | None:
        if self._secret.given is not None:
            return self._secret.given
        password = self._ask(*PASSWORD_SIZE)
        if password is None:
            self._err("Abort")
            return None
        return crypt.hash_password(password)

    def _ask(self, least: int, most: int) -> str | None:
        """A password given twice, or None after three failures of either."""
        for _ in range(_TRIES):
            first = self._secret.ask("input password: ")
            if first is None:
                return None
            if least <= len(first) <= most:
                break
            self._err(f"password should be {least}~{most} characters")
        else:
            return None
        for _ in range(_TRIES):
            again = self._secret.ask("input password again: ")
            if again is None:
                return None
            if again == first:
                return first
            self._err("password doesn't match")
        return None

    def generate_hash(self, password: str) -> int:
        """Print a hash for --hash-file; an empty password is asked for."""
        if not password:
            hashed = self._password_hash()
        elif not PASSWORD_SIZE[0] <= len(password) <= PASSWORD_SIZE[1]:
            self._err("invalid password length")
            return FAILED
        else:
            hashed = crypt.hash_password(password)
        if hashed is None:
            return FAILED
        self._out(hashed.text)
        return 0

    # -- showing ----------------------------------------------------------------------------------------------------

    def show(self, place: Key) -> int:
        """List the certificates and hashes of a variable."""
        if place not in self.variables:
            if place == MOK_LIST:
                self._out(f"{place.name} is empty")
            return 0
        try:
            groups = _grouped(siglist.decode(self.variables.value(place), place.name))
        except BadFile:
            self._err("Corrupted signature list")
            return FAILED
        for number, group in enumerate(groups, 1):
            self._out(f"[key {number}]")
            if group[0].is_certificate:
                digest = hashlib.sha1(group[0].data, usedforsecurity=False).digest()
                self._out("SHA1 Fingerprint: " + ":".join(f"{byte:02x}" for byte in digest))
                for line in text_of(group[0].data):
                    self._out(line)
            else:
                self._out(f"  [{group[0].hash_name.upper().replace('SHA', 'SHA-') or group[0].kind}]")
                for entry in group:
                    self._out(f"  {entry.data.hex()}")
            if number < len(groups):
                self._out("")
        return 0

    def export(self, place: Key, folder: str, prefix: str) -> int:
        """Write the certificates of a list to files, MOK-0001.der and so on."""
        if place not in self.variables:
            self._out(f"{place.name} is empty")
            return 0
        for number, group in enumerate(_grouped(self._entries(place)), 1):
            if group[0].is_certificate:
                Path(folder, f"{prefix}-{number:04}.der").write_bytes(group[0].data)
        return 0

    def test_key(self, request: Request, file: str) -> int:
        """0: the key is not enrolled and could be; 1: it is, or is blocked."""
        try:
            data = Path(file).read_bytes()
        except OSError:
            self._err(f"Failed to open {file}")
            return FAILED
        if not is_certificate(data):
            self._err("Not a valid x509 certificate")
            return FAILED
        if self._is_trusted(data):
            self._err(f"{file} is already in the built-in trusted keyring")
            return FAILED
        refused = self._refusal(request, siglist.certificate(data))
        self._out(f"{file} is not enrolled" if refused is None else refused.format(file=file))
        return 0 if refused is None else 1

    def state(self) -> int:
        """What Secure Boot is set to."""
        for key in (SECURE_BOOT, SETUP_MODE):
            if key not in self.variables:
                self._err(f'Failed to read "{key.name}" variable: No such file or directory')
                return FAILED
        if self.variables.flag(SECURE_BOOT) and not self.variables.flag(SETUP_MODE):
            self._out("SecureBoot enabled")
            if shim("MokSBStateRT") in self.variables:
                self._out("SecureBoot validation is disabled in shim")
            return 0
        self._out("SecureBoot disabled")
        if self.variables.flag(SETUP_MODE):
            self._out("Platform is in Setup Mode")
        return 0

    def content(self, key: Key) -> int:
        """Print a variable that is text."""
        found = self.variables.get(key)
        self._out(f"{key.name} is empty" if found is None else found.value.decode("latin-1").rstrip("\0\n"))
        return 0

    # -- settings ---------------------------------------------------------------------------------------------------

    def switch(self, name: str, on: bool) -> int:
        """A flag of shim's that is there or not."""
        self.variables.store(shim(name), b"\1" if on else b"", KEPT)
        return 0

    def timeout(self, seconds: int) -> int:
        """How long MokManager waits for a key; 10, its own choice, removes the setting."""
        value = max(-1, min(seconds, 0x7FFF))
        self.variables.store(shim("MokTimeout"), b"" if value == _USUAL_TIMEOUT else struct.pack("<i", value), KEPT)
        return 0


_USUAL_TIMEOUT = 10
_AUTH_SIZE = len(crypt.Hash(0, 0, b"", b"").packed())


def _grouped(entries: Sequence[Entry]) -> list[list[Entry]]:
    """As mokutil counts them: each certificate, and hashes that follow each other together."""
    groups: list[list[Entry]] = []
    for entry in entries:
        if groups and not entry.is_certificate and groups[-1][0].kind == entry.kind:
            groups[-1].append(entry)
        else:
            groups.append([entry])
    return groups
