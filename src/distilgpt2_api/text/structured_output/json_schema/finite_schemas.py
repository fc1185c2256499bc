"""Checks that a finite value is valid for a JSON schema; none is if a part of the schema requires itself.

A model would write such a value until its token limit.
"""

from typing import Any

from distilgpt2_api.text.structured_output.json_schema.keywords import JsonSchema

MAX_PASSES = 50
"""Passes over the definitions. A schema that needs more counts as finite."""


def is_all_finite(root: JsonSchema, definitions: JsonSchema) -> bool:
    """Whether a value of finite length is valid for the schema, and for each definition; it refers to all of them."""
    finite: set[str] = set()
    for _ in range(MAX_PASSES):
        num_before = len(finite)
        for name in reversed(definitions):
            if name not in finite and _is_finite(definitions[name], finite):
                finite.add(name)
        if len(finite) == num_before:
            return len(finite) == len(definitions) and _is_finite(root, finite)
    return True


def _is_finite(node: Any, finite: set[str]) -> bool:
    if not isinstance(node, dict):
        return True
    if "$ref" in node:
        return str(node["$ref"]).removeprefix("#/$defs/") in finite
    if not all(_is_finite(part, finite) for part in node.get("allOf", [])):
        return False
    for keyword in ("anyOf", "oneOf"):
        if node.get(keyword) and not any(_is_finite(branch, finite) for branch in node[keyword]):
            return False
    return all(_is_finite(part, finite) for part in _required(node))


def _required(node: JsonSchema) -> list[Any]:
    """The schemas of required properties and items."""
    properties, required, min_items = node.get("properties"), node.get("required"), node.get("minItems")
    if node.get("type") == "object" and isinstance(properties, dict) and isinstance(required, list):
        return [properties.get(name) for name in required if isinstance(name, str)]
    if node.get("type") == "array" and isinstance(min_items, int) and min_items > 0:
        named = node.get("prefixItems")
        return named[:min_items] if isinstance(named, list) else [node.get("items")]
    return []
