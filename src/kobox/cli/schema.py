"""``kobox schema``: the JSON Schema of what a command prints with ``--json``.

The files in ``schemas`` share one set of definitions; a command's schema is its own root with the definitions that it
needs. Its ``$id`` ends in a version, which goes up when a field goes away or changes its meaning; fields may be added
without that.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kobox.errors import UsageError

EPILOG = """\
examples:
  kobox schema                            which commands have one
  kobox schema run > run.schema.json
  kobox run --json hello.ko | check-jsonschema --schemafile run.schema.json -"""

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_FILES = Path(__file__).parent / "schemas"
_REFERENCE = re.compile(r'"#/\$defs/([^"]+)"')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("command", nargs="?", metavar="SCHEMA", help="the command; without it those that have one")


def run(args: argparse.Namespace) -> int:
    """Print a schema, or the list of them."""
    commands, _ = load()
    if args.command is None:
        for name, described in sorted(commands.items()):
            print(f"{name:<12} {identity(name, described)}")
        return 0
    if args.command not in commands:
        close = difflib.get_close_matches(args.command, commands, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "'kobox schema' lists them"
        raise UsageError(f"no schema {args.command!r}", hint=hint)
    print(json.dumps(schema_of(args.command), indent=2))
    return 0


def load() -> tuple[dict[str, Any], dict[str, Any]]:
    """(commands, definitions) of all files."""
    commands: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for file in sorted(_FILES.glob("*.json")):
        content = json.loads(file.read_bytes())
        commands |= content["commands"]
        definitions |= content["$defs"]
    return commands, definitions


def identity(name: str, described: dict[str, Any]) -> str:
    """A schema's ``$id``."""
    return f"urn:kobox:schema:{name}:{described['version']}"


def schema_of(name: str) -> dict[str, Any]:
    """The whole schema of a command; ``KeyError`` when it has none."""
    commands, definitions = load()
    described = commands[name]
    return {
        "$schema": DIALECT,
        "$id": identity(name, described),
        "title": described["title"],
        **described["schema"],
        "$defs": {needed: definitions[needed] for needed in _needed(described["schema"], definitions)},
    }


def _needed(schema: Any, definitions: dict[str, Any]) -> Iterator[str]:
    """Names of the definitions that a schema leads to, each once."""
    seen: set[str] = set()
    waiting = [schema]
    while waiting:
        for name in _REFERENCE.findall(json.dumps(waiting.pop())):
            if name not in seen:
                seen.add(name)
                waiting.append(definitions[name])
                yield name
