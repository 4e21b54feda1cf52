"""MokManager: what was asked for is shown before the kernel boots, and done when somebody gives the password.

Then shim mirrors its lists into the variables that a running system sees. Follows shim's MokManager.c and mok.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kobox.efi import crypt, siglist
from kobox.efi.mok import TOGGLE, Request
from kobox.efi.siglist import Entry
from kobox.efi.variables import BOOT, SHOWN, Key, Variables, shim
from kobox.errors import BadFile, Errno
from kobox.sign.keyrings import load_key
from kobox.sign.keys import Algorithms
from kobox.sign.oids import default_registry

TRIES = 3


class Toggle(NamedTuple):
    """A switch of shim's: the request's variable, the one that holds the state, and what the menu calls it for 0 and 1.
    ``set_by`` is the asked state for which the variable is there."""

    request: str
    state: str
    names: tuple[str, str]
    set_by: int = 0


_TOGGLES = (
    Toggle("MokSB", "MokSBState", ("Disable Secure Boot validation", "Enable Secure Boot validation")),
    Toggle("MokDB", "MokDBState", ("Do not use the firmware's db", "Use the firmware's db")),
    Toggle("MokListTrustedNew", "MokListTrusted", ("Trust the MOK list", "Do not trust the MOK list"), set_by=1),
)
_MENU = {
    Request.ENROLL: ("Enroll MOK", "Reset MOK"),
    Request.DELETE: ("Delete MOK", ""),
    Request.ENROLL_X: ("Enroll MOKX", "Reset MOKX"),
    Request.DELETE_X: ("Delete MOKX", ""),
}
_LISTS = {
    Request.ENROLL: "MokList",
    Request.DELETE: "MokList",
    Request.ENROLL_X: "MokListX",
    Request.DELETE_X: "MokListX",
}


class Pending(NamedTuple):
    """Something that waits for a password. ``entries`` are the keys or hashes it is about, in words."""

    title: str
    entries: tuple[str, ...]
    check: Callable[[str], bool]
    perform: Callable[[Variables], None]
    keys: tuple[Key, ...]


class Outcome(NamedTuple):
    title: str
    entries: tuple[str, ...]
    done: bool
    why: str = ""


def pending(variables: Variables) -> list[Pending]:
    """What waits, in the order of the menu."""
    found = [one for request in Request if (one := _list_request(variables, request)) is not None]
    return found + [one for toggle in _TOGGLES if (one := _toggle_request(variables, toggle)) is not None]


Password = Callable[[Pending, int], str | None]
"""Asked for the password of what waits, with the number of the try; None goes on to boot without it."""


def manage(variables: Variables, password: Password | None) -> list[Outcome]:
    """Go through what waits. Whatever
    happens, the requests are gone afterwards, as with MokManager: a missed one has to be made again."""
    outcomes = []
    for one in pending(variables):
        why = "nobody gave the password"
        done = False
        for attempt in range(TRIES):
            given = password(one, attempt) if password is not None else None
            if given is None:
                break
            if one.check(given):
                one.perform(variables)
                done, why = True, ""
                break
            why = "the password doesn't match"
        outcomes.append(Outcome(one.title, one.entries, done, why))
        for key in one.keys:
            variables.pop(key, None)
    for request in Request:
        variables.pop(request.list, None)
        variables.pop(request.auth, None)
    return outcomes


def mirror(variables: Variables, allowed: list[Entry], banned: list[Entry]) -> None:
    """What shim leaves for the kernel: its own certificates first, then the owner's lists, read-only copies of them."""
    own = variables.value(shim("MokList"))
    variables.store(shim("MokListRT"), siglist.encode(allowed) + own, SHOWN)
    variables.store(shim("MokListXRT"), siglist.encode(banned) + variables.value(shim("MokListX")), SHOWN)
    variables.store(shim("MokSBStateRT"), variables.value(shim("MokSBState")), SHOWN)
    trusted = shim("MokListTrusted") not in variables
    variables.store(shim("MokListTrustedRT"), b"\1" if trusted else b"", SHOWN)


def described(entries: list[Entry]) -> tuple[str, ...]:
    """Certificates by the name that a kernel gives them, hashes by their digits."""
    return tuple(map(_described, entries))


def _described(entry: Entry) -> str:
    if not entry.is_certificate:
        return f"{entry.hash_name or entry.kind} {entry.data.hex()}"
    try:
        return load_key("", entry.data, Algorithms.every(), default_registry()).description
    except Errno:
        return f"a certificate of {len(entry.data)} bytes that no kernel reads"


def _list_request(variables: Variables, request: Request) -> Pending | None:
    auth = variables.value(request.auth)
    if not auth:
        return None
    hashed = crypt.unpack(auth)
    title, reset = _MENU[request]
    asked = variables.value(request.list)
    if not asked:
        if not reset:
            return None
        title = reset
    try:
        entries = siglist.decode(asked, request.list.name)
    except BadFile:
        entries = []
    target = shim(_LISTS[request])

    def perform(now: Variables) -> None:
        before = now.value(target)
        if not asked:
            after = b""
        elif request in (Request.ENROLL, Request.ENROLL_X):
            after = before + asked
        else:
            gone = {(entry.kind, entry.data) for entry in entries}
            after = siglist.encode(
                entry for entry in siglist.decode(before, target.name) if (entry.kind, entry.data) not in gone
            )
        now.store(target, after, BOOT)

    return Pending(
        title,
        described(entries),
        lambda password: hashed is not None and hashed.matches(password),
        perform,
        (request.list, request.auth),
    )


def _toggle_request(variables: Variables, toggle: Toggle) -> Pending | None:
    key = shim(toggle.request)
    value = variables.value(key)
    if len(value) < TOGGLE.size - 32:
        return None
    state, length, secret = TOGGLE.unpack(value.ljust(TOGGLE.size, b"\0")[: TOGGLE.size])
    wanted = secret[: 2 * min(length, 16)].decode("utf-16-le", "replace")

    def perform(now: Variables) -> None:
        now.store(shim(toggle.state), b"\1" if state == toggle.set_by else b"", BOOT)

    return Pending(
        toggle.names[min(state, 1)], (), lambda password: bool(wanted) and password == wanted, perform, (key,)
    )
