"""A validator for the part of JSON Schema that kobox's own schemas use; anything else in a schema is an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SCHEMAS = Path(__file__).parents[1] / "docs/schemas"

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "null": type(None),
}

_KNOWN = {"$ref", "type", "properties", "required", "additionalProperties", "items", "enum", "anyOf", "description"}


def problems(value: Any, file: str, name: str) -> list[str]:
    """Where ``value`` is not what ``$defs/name`` of the schema file says."""
    definitions = json.loads((SCHEMAS / file).read_text())["$defs"]
    return list(_problems(value, {"$ref": f"#/$defs/{name}"}, definitions, name))


def _problems(value: Any, schema: dict[str, Any], definitions: dict[str, Any], at: str) -> list[str]:
    assert set(schema) <= _KNOWN, f"{at}: the validator does not know {set(schema) - _KNOWN}"
    if "$ref" in schema:
        return _problems(value, definitions[schema["$ref"].removeprefix("#/$defs/")], definitions, at)
    if "anyOf" in schema:
        tried = [_problems(value, choice, definitions, at) for choice in schema["anyOf"]]
        return [] if any(not found for found in tried) else tried[0]
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(_is(value, kind) for kind in types):
        return [f"{at}: {value!r} is no {' or '.join(types)}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{at}: {value!r} is none of {schema['enum']}"]
    if isinstance(value, list):
        return [
            found
            for n, item in enumerate(value)
            for found in _problems(item, schema["items"], definitions, f"{at}[{n}]")
        ]
    return _object_problems(value, schema, definitions, at) if isinstance(value, dict) else []


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and not (kind == "integer" and isinstance(value, bool))


def _object_problems(value: dict[str, Any], schema: dict[str, Any], definitions: dict[str, Any], at: str) -> list[str]:
    properties = schema["properties"]
    found = [f"{at}: {key} is missing" for key in schema["required"] if key not in value]
    for key, item in value.items():
        if key in properties:
            found += _problems(item, properties[key], definitions, f"{at}.{key}")
        elif schema["additionalProperties"] is False:
            found.append(f"{at}: {key} is not in the schema")
    return found
