"""What the commands that speak to a session share: the option that names one, and the kernel at its other end."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kobox.session.client import RemoteKernel

HELP = "the session to act on (default: $KOBOX_SESSION, else the only one that runs)"


def add_session(parser: argparse.ArgumentParser) -> None:
    """The option ``--session NAME``."""
    parser.add_argument("--session", metavar="SESSION", help=HELP)


def kernel_of(args: argparse.Namespace) -> RemoteKernel:
    """The kernel of the session that is meant."""
    from kobox.session.client import connect

    return connect(args.session)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def age(seconds: float) -> str:
    """A span of time in its largest unit: ``12 s``, ``5 min``, ``3 h``, ``2 d``."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
