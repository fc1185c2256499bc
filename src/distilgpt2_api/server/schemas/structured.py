"""What a completion's text must be, as OpenAI's and vLLM's clients say it. `server/constraints.py` reads it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from distilgpt2_api.server.constraints import ALWAYS_SO, MAX_CHOICES
from distilgpt2_api.server.schemas.validation import Body

JSON_SCHEMA: dict[str, Any] = {"type": "object", "description": "A JSON schema."}
JSON_SCHEMA_OR_TEXT: dict[str, Any] = {
    "anyOf": [JSON_SCHEMA, {"type": "string", "minLength": 2, "description": "The JSON of one."}]
}
TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
NULL: dict[str, Any] = {"type": "null"}
CHOICE: dict[str, Any] = {"type": "array", "minItems": 1, "maxItems": MAX_CHOICES, "items": TEXT}


def typed_value(kinds: list[str], value: dict[str, Any]) -> dict[str, Any]:
    """TGI's form of a constraint, as a JSON schema."""
    return {
        "type": "object",
        "required": ["type", "value"],
        "properties": {"type": {"enum": kinds}, "value": value},
        "additionalProperties": False,
    }


TGI_FORMS: list[dict[str, Any]] = [
    typed_value(["json", "json_object"], JSON_SCHEMA_OR_TEXT),
    typed_value(["regex"], TEXT),
    typed_value(
        ["json_schema"],
        {
            "type": "object",
            "required": ["schema"],
            "properties": {
                "name": {"anyOf": [TEXT, NULL]},
                "schema": JSON_SCHEMA,
                "strict": {"type": ["boolean", "null"]},
            },
            "additionalProperties": False,
        },
    ),
]

RESPONSE_FORMAT: dict[str, Any] = {
    "anyOf": [
        {
            "type": "object",
            "description": "llama.cpp's form.",
            "required": ["type", "schema"],
            "properties": {"type": {"const": "json_object"}, "schema": JSON_SCHEMA_OR_TEXT},
            "additionalProperties": False,
        },
        *TGI_FORMS,
        {
            "type": "object",
            "required": ["type"],
            "properties": {"type": {"enum": ["text", "json_object"]}},
            "additionalProperties": False,
        },
        {
            "type": "object",
            "required": ["type", "json_schema"],
            "properties": {
                "type": {"const": "json_schema"},
                "json_schema": {
                    "type": "object",
                    "required": ["name", "schema"],
                    "properties": {
                        "name": TEXT,
                        "description": {"type": ["string", "null"]},
                        "schema": JSON_SCHEMA,
                        "strict": {"type": ["boolean", "null"], "description": "The schema is held to either way."},
                    },
                    "additionalProperties": False,
                },
            },
            "additionalProperties": False,
        },
        NULL,
    ]
}

STRUCTURED_OUTPUTS: dict[str, Any] = {
    "anyOf": [
        {
            "type": "object",
            "description": "Exactly one.",
            "minProperties": 1,
            "properties": {
                "json": {"anyOf": [JSON_SCHEMA_OR_TEXT, NULL]},
                "regex": {"anyOf": [TEXT, NULL]},
                "choice": {"anyOf": [CHOICE, NULL]},
                "grammar": {"anyOf": [TEXT, NULL]},
                "json_object": {"type": ["boolean", "null"]},
                **{
                    name: {"type": ["boolean", "null"], "description": "Has no effect: it is always so."}
                    for name in ALWAYS_SO
                },
            },
            "additionalProperties": False,
        },
        NULL,
    ]
}


def _or_null(schema: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [schema, NULL]})


class StructuredFields(Body):
    """One of them at most. Null: any text."""

    response_format: Annotated[Any, WithJsonSchema(RESPONSE_FORMAT)] = Field(
        None,
        description="`json_object`, or `json_schema` with its schema; or TGI's form, with a `value`. Objects are closed"
        " unless the schema says otherwise.",
    )
    structured_outputs: Annotated[Any, WithJsonSchema(STRUCTURED_OUTPUTS)] = Field(
        None, description="A JSON schema, a regular expression, a choice of texts or a grammar in llguidance's Lark."
    )
    guided_json: Annotated[Any, _or_null(JSON_SCHEMA_OR_TEXT)] = Field(
        None, description="A JSON schema, whose objects are closed unless it says otherwise."
    )
    guided_regex: Annotated[Any, _or_null(TEXT)] = Field(
        None, description="A regular expression that the whole completion matches."
    )
    guided_choice: Annotated[Any, _or_null(CHOICE)] = Field(None, description="Texts, of which the completion is one.")
    guided_grammar: Annotated[Any, _or_null(TEXT)] = Field(
        None, description="A grammar in llguidance's dialect of Lark."
    )
