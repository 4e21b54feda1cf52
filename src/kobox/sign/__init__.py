"""Signatures of modules: who signed, who is trusted, what the kernel says to it.

``check`` is the loader's first step, ``verify_signature`` the judgement alone, ``Keyrings`` what a kernel trusts.

A name is imported from its file when it is first asked for: an unsigned module needs no keys.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kobox.sign.certfile import certificate_of, read_certificate
    from kobox.sign.keyrings import (
        BUILTIN,
        MACHINE,
        PLATFORM,
        SECONDARY,
        Key,
        Keyring,
        Keyrings,
        load_certificate_list,
        load_key,
    )
    from kobox.sign.keys import Algorithms
    from kobox.sign.modules import verify_signature
    from kobox.sign.oids import Registry, default_registry
    from kobox.sign.policy import MARKER, Check, Line, Lockdown, Verdict, check, lockdown_line

_HOME = {
    "certfile": ("certificate_of", "read_certificate"),
    "keyrings": (
        "BUILTIN", "MACHINE", "PLATFORM", "SECONDARY", "Key", "Keyring", "Keyrings", "load_certificate_list",
        "load_key",
    ),
    "keys": ("Algorithms",),
    "modules": ("verify_signature",),
    "oids": ("Registry", "default_registry"),
    "policy": ("MARKER", "Check", "Line", "Lockdown", "Verdict", "check", "lockdown_line"),
}  # fmt: skip
_FILE = {name: file for file, names in _HOME.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _FILE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_FILE[name]}"), name)
    globals()[name] = found
    return found


__all__ = [
    "BUILTIN",
    "MACHINE",
    "MARKER",
    "PLATFORM",
    "SECONDARY",
    "Algorithms",
    "Check",
    "Key",
    "Keyring",
    "Keyrings",
    "Line",
    "Lockdown",
    "Registry",
    "Verdict",
    "certificate_of",
    "check",
    "default_registry",
    "load_certificate_list",
    "load_key",
    "lockdown_line",
    "read_certificate",
    "verify_signature",
]
