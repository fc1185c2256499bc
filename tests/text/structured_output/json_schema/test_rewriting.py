"""JSON schemas: objects are closed, annotations are ignored, references are resolved."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.core.errors import GenerationError, InvalidRequestError
from distilgpt2_api.core.grammar import Grammar, GrammarKind
from distilgpt2_api.text.structured_output.grammars import GrammarCompiler
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

END_OF_TEXT = 0
Follows = Callable[[object, object], bool]
ANIMAL = {"type": "object", "properties": {"kind": {"const": "cat"}}, "required": ["kind"]}
DOG = {"type": "object", "properties": {"kind": {"const": "dog"}, "legs": {"enum": [4]}}, "required": ["kind"]}
DEFINITIONS = {"$defs": {"animal": ANIMAL, "dog": DOG}}
CAT = {"kind": "cat"}


@pytest.fixture(scope="module")
def compiler(json_folder: Path) -> Iterator[GrammarCompiler]:
    tokenizer = Tokenizer.from_folder(json_folder)
    compiler = GrammarCompiler(tokenizer, vocab_size=tokenizer.vocab_size, eos_token_ids=(END_OF_TEXT,))
    yield compiler
    compiler.close()


@pytest.fixture(scope="module")
def follows(compiler: GrammarCompiler, tokenizer: Tokenizer) -> Follows:
    """Whether the schema lets a model write this value's JSON, or this text, completely."""

    def follows(schema: object, value: object) -> bool:
        grammar = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(schema))
        compiler.check(grammar, param="guided_json")
        guide = compiler.open(grammar)
        try:
            for token_id in tokenizer.encode(value if isinstance(value, Text) else json.dumps(value)):
                guide.accept(token_id)
            return guide.is_finished or bool(guide.compute_mask()[0] & 1 << END_OF_TEXT)
        except GenerationError:
            return False

    return follows


class Text(str):
    """JSON text, not a value to serialize."""

    __slots__ = ()


CLOSED: dict[str, tuple[object, list[object], list[object]]] = {
    "properties": (ANIMAL, [CAT], [{**CAT, "a": 1}]),
    "no property at all": ({"type": "object", "properties": {}}, [{}], [{"a": 1}]),
    "patterns": ({"type": "object", "patternProperties": {"^a": {"const": 1}}}, [{}, {"ab": 1}], [{"b": 1}, {"ab": 2}]),
    "only required": ({"type": "object", "required": ["a"]}, [{"a": 1}], [{"a": 1, "b": 2}]),
    "required beside properties": (
        {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a", "b"]},
        [{"a": 1, "b": [2]}],
        [{"a": 1}, {"a": 1, "b": 2, "c": 3}],
    ),
    "without a type": ({"properties": {"a": {"const": 1}}}, [{}, {"a": 1}], [{"b": 1}, 1, "a"]),
    "a property": ({"type": "object", "properties": {"pet": ANIMAL}}, [{"pet": CAT}], [{"pet": {**CAT, "a": 1}}]),
    "items": ({"type": "array", "items": ANIMAL}, [[CAT, CAT]], [[{**CAT, "a": 1}]]),
    "a definition": ({"$ref": "#/$defs/animal", **DEFINITIONS}, [CAT], [{**CAT, "a": 1}]),
    "a definition elsewhere": (
        {"$ref": "#/components/schemas/a~1b", "components": {"schemas": {"a/b": ANIMAL}}},
        [CAT],
        [{**CAT, "a": 1}],
    ),
    "a definition with a description": (
        {"$ref": "#/$defs/animal", "description": "A pet.", "default": CAT, **DEFINITIONS},
        [CAT],
        [{**CAT, "a": 1}],
    ),
    "a definition and more": (
        {"$ref": "#/$defs/animal", "properties": {"age": {"enum": [1]}}, **DEFINITIONS},
        [CAT, {**CAT, "age": 1}],
        [{**CAT, "a": 1}, {"age": 1}, {**CAT, "age": 2}],
    ),
    "all of": (
        {
            "allOf": [{"$ref": "#/$defs/animal"}, {"properties": {"age": {"enum": [1]}}, "required": ["age"]}],
            **DEFINITIONS,
        },
        [{**CAT, "age": 1}],
        [CAT, {**CAT, "age": 1, "a": 1}],
    ),
    "any of": (
        {"anyOf": [{"$ref": "#/$defs/dog"}, {"type": "null"}], **DEFINITIONS},
        [None],
        [{"kind": "dog", "a": 1}],
    ),
    "any of, beside properties": (
        {
            "type": "object",
            "properties": {"t": {"const": 0}},
            "anyOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}}],
        },
        [{"t": 0}, {"t": 0, "a": 1}, {"t": 0, "b": 2}],
        [{"t": 0, "a": 1, "b": 2}, {"t": 0, "c": 3}],
    ),
    "at least one": (
        {"properties": {"a": {"const": 1}, "b": {"const": 2}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        [{"a": 1}, {"b": 2}, {"a": 1, "b": 2}],
        [{}, {"a": 1, "c": 3}],
    ),
    "one of, told apart by a constant": (
        {"oneOf": [{"$ref": "#/$defs/animal"}, {"$ref": "#/$defs/dog"}], **DEFINITIONS},
        [CAT, {"kind": "dog", "legs": 4}],
        [{**CAT, "legs": 4}, {"kind": "cow"}],
    ),
    "recursion": (
        {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]},
        [{"next": None}, {"next": {"next": None}}],
        [{"next": {"next": None, "a": 1}}, {}],
    ),
    "a list of named items": ({"type": "array", "prefixItems": [{"const": 1}]}, [[], [1]], [[1, 2]]),
    "a list as before 2020": ({"type": "array", "items": [{"const": 1}]}, [[], [1]], [[1, 2]]),
    "nothing unevaluated": ({**ANIMAL, "unevaluatedProperties": False}, [CAT], [{**CAT, "a": 1}]),
}
OPEN: dict[str, tuple[object, list[object]]] = {
    "any object": ({"type": "object"}, [{}, {"a": {"b": 1}}]),
    "additional": ({**ANIMAL, "additionalProperties": True}, [{**CAT, "a": {"b": 1}}]),
    "additional of a kind": ({**ANIMAL, "additionalProperties": {"const": 1}}, [{**CAT, "a": 1}]),
    "a dictionary": ({"type": "object", "additionalProperties": {"type": "integer"}}, [{"a": 1, "b": 2}]),
    "unevaluated": ({**ANIMAL, "unevaluatedProperties": True}, [{**CAT, "a": 1}]),
    "in one part of all": (
        {"allOf": [{**ANIMAL, "additionalProperties": True}, {"properties": {"b": {"const": 2}}}]},
        [{**CAT, "b": 2, "c": 3}],
    ),
    "a list with more items than are named": (
        {"type": "array", "prefixItems": [{"const": 1}], "minItems": 2},
        [[1, "a"], [1, 2, 3]],
    ),
    "a list": ({"type": "array", "prefixItems": [{"const": 1}], "items": {"const": 2}}, [[1, 2, 2]]),
}


@pytest.mark.reported("outlines and instructor with pydantic models: JSON that ran to the length limit")
@pytest.mark.parametrize("name", CLOSED)
def test_an_object_has_the_properties_that_its_schema_names(name: str, follows: Follows) -> None:
    schema, allowed, forbidden = CLOSED[name]

    assert [value for value in allowed if not follows(schema, value)] == []
    assert [value for value in forbidden if follows(schema, value)] == []


@pytest.mark.parametrize("name", OPEN)
def test_an_object_is_open_if_its_schema_says_so(name: str, follows: Follows) -> None:
    schema, allowed = OPEN[name]

    assert [value for value in allowed if not follows(schema, value)] == []


@pytest.mark.parametrize(
    "keyword",
    ["properties", "$defs"],
)
def test_a_property_may_be_named_like_a_keyword(keyword: str, follows: Follows) -> None:
    schema = {"type": "object", "properties": {keyword: {"const": 1}, "format": {"const": 2}, "not": {"const": 3}}}

    assert follows(schema, {keyword: 1, "format": 2, "not": 3})


def test_flexible_white_space_is_bounded(follows: Follows) -> None:
    """A schema may ask for it, but not for unlimited white space; other options of `x-guidance` don't enable it."""
    flexible = {**ANIMAL, "x-guidance": {"whitespace_flexible": True}}

    assert follows(flexible, Text('{\n  "kind": "cat"\n}'))
    assert not follows(flexible, Text("{" + " " * 40 + '"kind": "cat"}'))
    assert not follows({**ANIMAL, "x-guidance": {"coerce_one_of": True}}, Text('{ "kind": "cat"}'))


@pytest.mark.reported(
    "schemas of OpenAPI documents and pydantic models, whose formats other validators don't know either"
)
@pytest.mark.parametrize(
    "name",
    [
        *("password", "binary", "byte", "uuid4", "path", "int64", "file-path", "json-string", "base64url", "poem"),
        *("idn-email", "iri", "uri-reference", "json-pointer", "regex"),
    ],
)
def test_an_unknown_format_is_an_annotation(name: str, follows: Follows) -> None:
    assert follows({"type": "string", "format": name}, "anything")


@pytest.mark.parametrize(
    ("name", "value", "other"),
    [
        ("date-time", "2026-01-31T23:59:59Z", "2026-01-31"),
        ("time", "23:59:59Z", "noon"),
        ("date", "2026-01-31", "2026-02-31"),
        ("duration", "P3D", "3 days"),
        ("email", "a@example.com", "a"),
        ("hostname", "example.com", "-"),
        ("ipv4", "127.0.0.1", "127.0.0"),
        ("ipv6", "::1", "127"),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123"),
        ("uri", "https://example.com/", "example"),
    ],
)
def test_a_known_format_is_enforced(name: str, value: str, other: str, follows: Follows) -> None:
    assert follows({"type": "string", "format": name}, value)
    assert not follows({"type": "string", "format": name}, other)


@pytest.mark.parametrize(
    "annotation",
    [
        *({"title": "T"}, {"description": "D"}, {"default": 1}, {"examples": [1]}, {"example": 1}, {"$comment": "C"}),
        *(
            {"readOnly": True},
            {"writeOnly": True},
            {"deprecated": True},
            {"nullable": True},
            {"xml": {}},
            {"x-order": 1},
        ),
        *({"contentEncoding": "base64"}, {"contentMediaType": "image/png"}, {"contentSchema": {"type": "null"}}),
        *({"$schema": "https://example.com/dialect"}, {"$schema": "http://json-schema.org/draft-07/schema#"}),
        *({"$id": "https://example.com/animal"}, {"id": "animal"}, {"$anchor": "animal"}, {"$dynamicAnchor": "animal"}),
        *({"discriminator": {"propertyName": "kind"}}, {"externalDocs": {}}, {"$vocabulary": {}}, {"strict": True}),
        *({"uniqueItems": False}, {"propertyNames": {}}, {"dependentRequired": {}}, {"not": False}, {"then": False}),
        *({"minContains": 2}, {"unevaluatedItems": False}, {"if": {"type": "null"}}),
    ],
    ids=json.dumps,
)
def test_keywords_that_constrain_nothing_are_ignored(annotation: dict[str, Any], follows: Follows) -> None:
    """At the top level, in a definition and in a property."""
    inner = {**ANIMAL, **annotation}

    assert follows(inner, CAT)
    assert follows({"type": "object", "properties": {"pet": inner}}, {"pet": CAT})
    assert follows({"$ref": "#/$defs/animal", "$defs": {"animal": inner}}, CAT)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"uniqueItems": True}, "its keyword 'uniqueItems' is not supported"),
        ({"propertyNames": {"maxLength": 3}}, "'propertyNames'"),
        ({"dependentRequired": {"a": ["b"]}}, "'dependentRequired'"),
        ({"if": {"required": ["a"]}, "then": False}, "'if'"),
        ({"contains": {"const": 1}}, "'contains'"),
        ({"unevaluatedProperties": {"type": "null"}}, "'unevaluatedProperties'"),
        ({"$dynamicRef": "#a"}, "'\\$dynamicRef'"),
        ({"properties": {"a": {"not": {}}}}, "'not'"),
        ({"oneOf": [{"type": "string"}, {"maxLength": 3, "type": "string"}]}, "its oneOf is not supported"),
        ({"$ref": "#/$defs/none"}, "'#/\\$defs/none' does not exist"),
        ({"$ref": "#none"}, "'#none' does not exist"),
        ({"$ref": "other.json"}, "'other.json' is not within the schema"),
        ({"$ref": 3}, "must be a string"),
        ({"$ref": "#"}, "never ends: it requires itself"),
        ({"allOf": [{"$ref": "#"}]}, "refers back to itself"),
        ({"anyOf": [{"$ref": "#"}]}, "never ends: it requires itself"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "never ends"),
        ({"type": "object", "properties": {"c": {"$ref": "#"}}, "required": ["c"]}, "never ends: it requires itself"),
        (
            {
                "properties": {"c": {"$ref": "#/$defs/a"}},
                "$defs": {"a": {"items": {"$ref": "#/$defs/a"}, "minItems": 1}},
            },
            "ends",
        ),
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "never ends: it requires itself"),
        ({"enum": []}, "Unsatisfiable"),
        ({"type": "string", "pattern": "[^\\s\\S]"}, "no string has its pattern"),
        ({"type": "string", "pattern": "^ab$", "maxLength": 1}, "no string has its pattern"),
        ({"type": "integer", "minimum": "3"}, "expected a number for 'minimum'"),
        ({"type": "string", "maxLength": 99999999999}, "a count in it is too large"),
        ({"type": "integer", "minimum": 10**40}, "bounds"),
        ({"x-guidance": {"foo": 1}, "type": "null"}, "x-guidance has an unknown field"),
        ({"type": "string", "enum": ["\ud800"]}, "lone surrogate"),
        ({"type": 3}, "type must be"),
        ({"properties": 3}, "properties must be an object"),
        ({"allOf": [{"properties": {f"k{index}": {}}} for index in range(900)]}, "too large"),
        (
            {
                "$ref": "#/$defs/d0",
                "title": "x",
                "$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(30)} | {"d30": ANIMAL},
            },
            "too large",
        ),
    ],
    ids=lambda value: json.dumps(value)[:50] if isinstance(value, dict) else None,
)
def test_what_can_not_be_followed_is_refused_by_name(
    schema: dict[str, Any], reason: str, compiler: GrammarCompiler
) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        compiler.check(Grammar(GrammarKind.JSON_SCHEMA, json.dumps(schema)), param="guided_json")
