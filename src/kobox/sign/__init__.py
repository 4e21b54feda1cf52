"""Signatures of modules: who signed, who is trusted, what the kernel says to it.

``check`` is the loader's first step, ``verify_signature`` the judgement alone, ``Keyrings`` what a kernel trusts.
"""

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
from kobox.sign.modules import MARKER, Check, Line, Lockdown, Verdict, check, lockdown_line, verify_signature
from kobox.sign.oids import Registry, default_registry

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
    "check",
    "default_registry",
    "load_certificate_list",
    "load_key",
    "lockdown_line",
    "verify_signature",
]
