"""Rewrites JSON schemas for the grammar library: closes objects, makes references local, leaves out annotations.

The library reads an object as the standard does: further properties are allowed unless `additionalProperties` is false.
A model that may add properties adds them until its token limit, and the JSON is cut off. So objects are closed here, as
in other servers' grammar backends: an object has the properties that its schema names, unless the schema says
otherwise. Properties named beside a `$ref`, or by other parts of an `allOf`, `anyOf` or `oneOf`, count too, as for the
standard's `unevaluatedProperties`.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from distilgpt2_api.text.structured_output.json_schema.finite_schemas import is_all_finite
from distilgpt2_api.text.structured_output.json_schema.keywords import (
    BRANCHES,
    KEYWORDS,
    MAPS_OF_SCHEMAS,
    SCHEMAS,
    JsonSchema,
    SchemaError,
    constrains,
    implied_type,
    is_enforced_format,
)
from distilgpt2_api.text.structured_output.json_schema.references import References

MAX_DEPTH = 100
"""Nested schemas. The library's own limit, 128 levels of JSON, applies first."""
MAX_EXPANDED_BYTES = 512 * 1024
"""Bytes that references, and properties named by neighbours, may add to a schema of at most 64 KiB."""
WHITESPACE_PATTERN = r"[ \n\r\t]{1,16}"
"""For a schema whose `x-guidance` asks for flexible white space. Unbounded, a small model writes nothing else."""


@dataclass(frozen=True, slots=True)
class Named:
    """Properties that schemas for the same object name."""

    names: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    is_said: bool = False
    """They name properties, or an empty set of them."""
    is_open: bool = False
    """They allow others."""


NOTHING = Named()


def close(schema: Any) -> JsonSchema:
    """The schema for the library. SchemaError if a keyword, a reference or a recursion can't be followed."""
    if not isinstance(schema, dict):
        raise SchemaError("a JSON schema is an object")
    options = schema.get("x-guidance")
    rewriter = _Rewriter(schema, is_lenient=isinstance(options, dict) and options.get("lenient") is True)
    closed = rewriter.rewrite()
    if isinstance(options, dict):
        if options.get("whitespace_flexible") is True and options.get("whitespace_pattern") is None:
            options = {**options, "whitespace_pattern": WHITESPACE_PATTERN}
        closed["x-guidance"] = options
    dialect = schema.get("$schema")
    if isinstance(dialect, str) and dialect.startswith(("http://json-schema.org/", "https://json-schema.org/")):
        closed["$schema"] = dialect
    return closed


class _Rewriter:
    def __init__(self, root: JsonSchema, *, is_lenient: bool) -> None:
        self._root = root
        self._references = References(root)
        self._is_lenient = is_lenient
        self._names: dict[int, str] = {}
        """Names of definitions, by the identity of the part of the schema that they come from."""
        self._waiting: list[tuple[str, Any]] = []
        """Definitions that are referred to and still to be rewritten."""
        self._named: dict[int, Named] = {}
        self._num_left_bytes = MAX_EXPANDED_BYTES

    def rewrite(self) -> JsonSchema:
        closed: JsonSchema = self._schema(self._root)
        definitions: JsonSchema = {}
        while self._waiting:
            name, target = self._waiting.pop()
            definitions[name] = self._schema(target)
        if not is_all_finite(closed, definitions):
            raise SchemaError("a part of it never ends: it requires itself")
        return {**closed, "$defs": definitions} if definitions else closed

    def _schema(
        self, node: Any, around: Named = NOTHING, *, depth: int = 0, via: tuple[int, ...] = (), is_part: bool = False
    ) -> Any:
        """The schema, closed. `around`: the properties that its neighbours name for the same object. `via`: the
        references that were expanded on the way here. `is_part`: the schema is one of several that must all hold.
        """
        if node is True and around.is_said:
            node = {}
        if not isinstance(node, dict):
            return node
        if depth > MAX_DEPTH:
            raise SchemaError(f"its schemas are nested more than {MAX_DEPTH} deep")
        kept = self._keep(node)
        if kept.keys() == {"$ref"} and not around.is_said and not is_part:
            return {"$ref": f"#/$defs/{self._definition(kept['$ref'])}"}
        rewritten = self._rewrite_parts(kept, depth=depth + 1)
        groups = list(self._groups(kept))
        own = _own(node)
        for index, (keyword, branches) in enumerate(groups):
            neighbours = chain(groups[:index], groups[index + 1 :])
            others = (self._named_by(branch) for _, group in neighbours for branch in group)
            beside = self._together(chain([around, own], others))
            is_whole = keyword in ("anyOf", "oneOf") or kept.keys() == {"$ref"}
            for branch in branches:
                part = self._branch(keyword, branch, beside, depth=depth + 1, via=via, is_part=not is_whole)
                rewritten["allOf" if keyword == "$ref" else keyword].append(part)
        if not groups:
            self._close(rewritten, node, self._together([around, own]), is_part=is_part)
        if "oneOf" in rewritten:
            _separate(rewritten, node)
        return rewritten

    def _rewrite_parts(self, kept: JsonSchema, *, depth: int) -> JsonSchema:
        """All keywords except those with schemas for the same value, which get an empty list."""
        rewritten: JsonSchema = {}
        for keyword, value in kept.items():
            if keyword == "$ref" or (keyword in BRANCHES and isinstance(value, list)):
                rewritten.setdefault("allOf" if keyword == "$ref" else keyword, [])
            elif keyword in MAPS_OF_SCHEMAS and isinstance(value, dict):
                rewritten[keyword] = {name: self._schema(part, depth=depth) for name, part in value.items()}
            elif keyword in SCHEMAS and isinstance(value, list):
                rewritten[keyword] = [self._schema(part, depth=depth) for part in value]
            elif keyword in SCHEMAS:
                rewritten[keyword] = self._schema(value, depth=depth)
            else:
                rewritten[keyword] = value
        return rewritten

    def _branch(
        self, keyword: str, branch: Any, beside: Named, *, depth: int, via: tuple[int, ...], is_part: bool
    ) -> Any:
        """A branch of a `$ref`, `allOf`, `anyOf` or `oneOf`, rewritten. References in a `oneOf` are expanded: otherwise
        the library can't tell whether its schemas exclude each other.
        """
        reference = branch.get("$ref") if isinstance(branch, dict) else None
        if keyword == "oneOf" and reference is not None and len(self._keep(branch)) == 1:
            branch = self._references.resolve(reference)
            keyword = "$ref"
        if keyword == "$ref":
            if id(branch) in via:
                raise SchemaError("no JSON is valid for it: its $ref refers back to itself directly")
            self._spend(len(json.dumps(branch)))
            via = (*via, id(branch))
        return self._schema(branch, beside, depth=depth, via=via, is_part=is_part)

    def _keep(self, node: JsonSchema) -> JsonSchema:
        """The keywords that constrain the value. SchemaError if the library does not support one of them."""
        kept: JsonSchema = {}
        for keyword, value in node.items():
            is_supported = KEYWORDS.get(keyword)
            if is_supported is None or (keyword == "format" and not is_enforced_format(value)):
                continue
            if is_supported:
                kept[keyword] = value
            elif constrains(keyword, node) and not self._is_lenient:
                raise SchemaError(f"its keyword {keyword!r} is not supported")
        return implied_type(kept) | kept

    def _close(self, rewritten: JsonSchema, node: JsonSchema, named: Named, *, is_part: bool) -> None:
        types = rewritten.get("type", ["object", "array"])
        if "enum" in node or "const" in node or not isinstance(types, str | list):
            return
        if "object" in types and named.is_said and not named.is_open and "additionalProperties" not in node:
            self._spend(sum(map(len, named.names)))
            for keyword, words in (("properties", named.names), ("patternProperties", named.patterns)):
                known = rewritten.get(keyword, {})
                if isinstance(known, dict) and (more := [word for word in words if word not in known]):
                    rewritten[keyword] = {**known, **dict.fromkeys(more, True)}
            rewritten["additionalProperties"] = False
        if "array" in types and not is_part:
            _close_list(rewritten, node)

    def _together(self, parts: Iterable[Named]) -> Named:
        names: dict[str, None] = {}
        patterns: dict[str, None] = {}
        is_said = is_open = False
        for part in parts:
            self._spend(1 + len(part.names) + len(part.patterns))
            names.update(dict.fromkeys(part.names))
            patterns.update(dict.fromkeys(part.patterns))
            is_said, is_open = is_said or part.is_said, is_open or part.is_open
        return Named(tuple(names), tuple(patterns), is_said, is_open)

    def _named_by(self, node: Any, depth: int = 0) -> Named:
        """The properties that a schema names, with those of the schemas that it refers to or is composed of."""
        if not isinstance(node, dict):
            return NOTHING
        if depth > MAX_DEPTH:
            raise SchemaError(f"its $ref, allOf, anyOf and oneOf are nested more than {MAX_DEPTH} deep")
        if id(node) not in self._named:
            self._named[id(node)] = NOTHING  # for a schema that refers back to itself
            parts = [self._named_by(branch, depth + 1) for _, group in self._groups(node) for branch in group]
            self._named[id(node)] = self._together([_own(node), *parts])
        return self._named[id(node)]

    def _groups(self, node: JsonSchema) -> Iterator[tuple[str, list[Any]]]:
        """Groups of schemas for the same value. All groups must hold; within a group, any one schema."""
        for keyword, value in node.items():
            if keyword == "$ref":
                yield keyword, [self._references.resolve(value)]
            elif keyword == "allOf" and isinstance(value, list):
                yield from ((keyword, [part]) for part in value)
            elif keyword in BRANCHES and isinstance(value, list):
                yield keyword, value

    def _definition(self, reference: Any) -> str:
        target = self._references.resolve(reference)
        if id(target) not in self._names:
            self._names[id(target)] = str(len(self._names))
            self._waiting.append((self._names[id(target)], target))
        return self._names[id(target)]

    def _spend(self, num_bytes: int) -> None:
        self._num_left_bytes -= num_bytes
        if self._num_left_bytes < 0:
            raise SchemaError("it is too large: its $ref, allOf, anyOf and oneOf expand to more than 512 KiB")


def _own(node: JsonSchema) -> Named:
    properties, patterns, required = (node.get(name) for name in ("properties", "patternProperties", "required"))
    names = dict.fromkeys(properties) if isinstance(properties, dict) else {}
    if isinstance(required, list):
        names.update(dict.fromkeys(name for name in required if isinstance(name, str)))
    is_open = node.get("additionalProperties", False) is not False or node.get("unevaluatedProperties") is True
    return Named(
        tuple(names),
        tuple(patterns) if isinstance(patterns, dict) else (),
        is_said=bool(names) or isinstance(properties, dict) or isinstance(patterns, dict),
        is_open=is_open,
    )


def _close_list(rewritten: JsonSchema, node: JsonSchema) -> None:
    """A list ends after the items that its schema lists one by one, unless the schema says otherwise."""
    if node.get("unevaluatedItems") is True:
        return
    for keyword, rest in (("prefixItems", "items"), ("items", "additionalItems")):
        named = node.get(keyword)
        if isinstance(named, list) and rest not in node:
            min_items = node.get("minItems", 0)
            if not isinstance(min_items, int) or min_items <= len(named):
                rewritten[rest] = False


def _separate(rewritten: JsonSchema, node: JsonSchema) -> None:
    """Help the library with a `oneOf`: require its discriminator, and turn schemas with different constants, which
    exclude each other, into an `anyOf`.
    """
    tag = node["discriminator"].get("propertyName") if isinstance(node.get("discriminator"), dict) else None
    if isinstance(tag, str):
        required = {"type": "object", "required": [tag]}
        rewritten["oneOf"] = [{"allOf": [branch, required]} for branch in rewritten["oneOf"]]
    values = [_constants(branch) for branch in rewritten["oneOf"]]
    constants = [json.dumps(value, sort_keys=True) for group in values for value in group]
    if all(values) and len(set(constants)) == len(constants) and "anyOf" not in rewritten:
        rewritten["anyOf"] = rewritten.pop("oneOf")


def _constants(branch: Any) -> list[Any]:
    if isinstance(branch, dict) and "const" in branch:
        return [branch["const"]]
    values = branch.get("enum") if isinstance(branch, dict) else None
    return values if isinstance(values, list) else []
