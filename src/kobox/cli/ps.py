"""``kobox ps``: the sessions that run, and what killed ones left."""

from __future__ import annotations

import argparse
import time
from typing import Any

from kobox.cli.sessions import age, print_json

EPILOG = """\
example:
  kobox ps
  kobox ps --json

A session that is gone was killed: kobox halt --session NAME clears it away, kobox boot --name NAME starts it anew.
"""

_COLUMNS = ("NAME", "STATE", "KERNEL", "AGE", "VIRTUAL", "TAINT", "PID", "ROOT")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="everything that is known of each, as JSON")


def run(args: argparse.Namespace) -> int:
    from kobox.session.listing import sessions

    found = sessions()
    if args.json:
        print_json(found)
        return 0
    rows = [_COLUMNS, *(_row(one) for one in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows if found else ():
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    from kobox.abi.taint import letters

    if one["state"] in ("gone", "booting"):
        return (one["name"], one["state"], "", "", "", "", str(one.get("pid", "")), "")
    return (
        one["name"], one["state"], one["release"], age(time.time() - one["started"]), f"{one['now']:.1f} s",
        letters(one["tainted"]) or "-", str(one["pid"]), one["root"] or "-",
    )  # fmt: skip
