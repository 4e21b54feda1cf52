"""Checks values against kobox's published schemas, with the library for it."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator

from kobox.cli.schema import load, schema_of


def problems(value: Any, name: str) -> list[str]:
    """Where ``value`` is not what the definition ``name`` says."""
    _, definitions = load()
    return _problems(value, {"$ref": f"#/$defs/{name}", "$defs": definitions})


def problems_of_command(value: Any, command: str) -> list[str]:
    """Where ``value`` is not what this command prints with ``--json``."""
    return _problems(value, schema_of(command))


def _problems(value: Any, schema: dict[str, Any]) -> list[str]:
    found = Draft202012Validator(schema).iter_errors(value)
    return [f"{error.json_path}: {error.message}" for error in found]
