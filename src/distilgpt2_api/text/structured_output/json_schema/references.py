"""Resolves references within a JSON schema: `#`, a pointer such as `#/$defs/NAME`, `#ANCHOR`, also after its `$id`."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from distilgpt2_api.text.structured_output.json_schema.keywords import JsonSchema, SchemaError


class References:
    """The references of one schema. Nothing is fetched from elsewhere."""

    def __init__(self, root: JsonSchema) -> None:
        self._root = root
        self._anchors: dict[str, JsonSchema] | None = None

    def resolve(self, reference: Any) -> Any:
        """The schema that `reference` names. SchemaError if there is none, or it is not within the root schema."""
        if not isinstance(reference, str):
            raise SchemaError("its $ref must be a string")
        base, _, fragment = reference.partition("#")
        if base and base != self._root.get("$id"):
            raise SchemaError(f"its $ref {reference!r} is not within the schema: only '#/$defs/NAME' and the like are")
        if not fragment or fragment.startswith("/"):
            target = self._follow(unquote(fragment).split("/")[1:])
        else:
            self._anchors = self._anchors or dict(_find_anchors(self._root))
            target = self._anchors.get(fragment)
        if not isinstance(target, dict | bool):
            raise SchemaError(f"its $ref {reference!r} does not exist in the schema")
        return target

    def _follow(self, segments: list[str]) -> Any:
        target: Any = self._root
        for segment in segments:
            key = segment.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict):
                target = target.get(key)
            elif isinstance(target, list) and key.isdecimal() and int(key) < len(target):
                target = target[int(key)]
            else:
                return None
        return target


def _find_anchors(value: Any) -> Iterator[tuple[str, JsonSchema]]:
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if isinstance(anchor := part.get("$anchor"), str):
                yield anchor, part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
