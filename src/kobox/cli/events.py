"""``kobox events``: what happens in a session, as it happens."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from kobox.cli.sessions import add_session, kernel_of

EPILOG = """\
examples:
  kobox events
  kobox events --kinds uevent,taint --json
  kobox events --since 0 --no-follow

Every event has a number; --since N goes on behind it. A follower that is too slow is told which numbers it missed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", type=int, metavar="N", help="go on behind event N; 0: from the oldest kept")
    parser.add_argument("--kinds", default="", metavar="KIND,…", help="only these: log, load, step, unload, uevent …")
    parser.add_argument("--no-follow", action="store_true", help="end with what there is")
    add_session(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def run(args: argparse.Namespace) -> int:
    kinds = [kind for kind in args.kinds.split(",") if kind]
    with kernel_of(args) as kernel:
        for event in kernel.events(args.since, kinds, not args.no_follow):
            if args.json:
                print(json.dumps(event), flush=True)
            elif event["type"] != "hello":
                print(f"{event['seq']:>6} {event['type']:<7} {_text(event)}", flush=True)
    return 0


def _text(event: dict[str, Any]) -> str:
    return _TEXTS.get(event["type"], _all_fields)(event)


def _all_fields(event: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in event.items() if name not in ("seq", "type"))


_TEXTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "log": lambda event: f"[{event['time'] / 1e9:12.6f}] {event['text']}",
    "step": lambda event: f"{event['module']}: {event['name']} {event['ms']:.3f} ms",
    "load": lambda event: f"{event['module']}: {event['reason'] or 'loaded'}",
    "uevent": lambda event: f"{event['action']} {event['path']}",
    "gap": lambda event: f"events {event.get('from', '?')} to {event.get('to', '?')} are lost",
    "taint": lambda event: f"{event['letters'] or 'none'} ({event['value']})",
}
