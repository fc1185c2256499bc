"""What a JSON schema allows, in a few words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

PLURALS = {"string": "strings", "integer": "integers", "number": "numbers", "list": "lists", "object": "objects"}


def in_words(schema: Schema, definitions: Schema) -> str:
    """A schema's values but null, which stands for the default. `definitions`: what references are to."""
    match schema:
        case {"$ref": str() as reference}:
            return in_words(definitions[reference.rpartition("/")[2]], definitions)
        case {"anyOf": list() as branches} | {"oneOf": list() as branches}:
            words = [in_words(branch, definitions) for branch in branches if branch.get("type") != "null"]
            return ", or ".join(dict.fromkeys(words))
        case {"enum": list() as values}:
            return ", or ".join(_in_json(value) for value in values)
        case {"const": value}:
            return _in_json(value)
    return _type_in_words(schema, definitions)


def _type_in_words(schema: Schema, definitions: Schema) -> str:
    match schema.get("type"):
        case "boolean":
            words = "`true`, or `false`"
        case "integer" | "number" as kind:
            words = " ".join([kind, *_bounds(schema)])
        case "string":
            words = f"string of at most {schema['maxLength']} characters" if "maxLength" in schema else "string"
        case "array":
            words = _list_in_words(schema, definitions)
        case "object":
            words = _object_in_words(schema, definitions)
        case _:
            words = "any"
    return words


def _list_in_words(schema: Schema, definitions: Schema) -> str:
    most = f"at most {schema['maxItems']} " if "maxItems" in schema else ""
    noun, space, rest = in_words(schema["items"], definitions).partition(" ")
    return f"list of {most}{PLURALS.get(noun, noun)}{space}{rest}"


def _object_in_words(schema: Schema, definitions: Schema) -> str:
    if "properties" in schema:
        return "object with " + ", ".join(f"`{name}`" for name in schema["properties"])
    values = list(schema.get("patternProperties", {}).values())
    return f"object with values: {in_words(values[0], definitions)}" if values else "object"


def _bounds(schema: Schema) -> Iterator[str]:
    for key, word in (
        ("minimum", "from"),
        ("exclusiveMinimum", "above"),
        ("maximum", "to"),
        ("exclusiveMaximum", "below"),
    ):
        if key in schema:
            yield f"{word} {_number(schema[key])}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _in_json(value: object) -> str:
    return f"`{json.dumps(value)}`"
