"""What a completion's text must be, as OpenAI's and vLLM's clients say it. `server/schema/grammars.py` reads it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from distilgpt2_api.server.schema.grammars import ALWAYS_SO, MAX_CHOICES
from distilgpt2_api.server.schema.validation import Body

JSON_SCHEMA: dict[str, Any] = {"type": "object", "description": "A JSON schema."}
JSON_SCHEMA_OR_TEXT: dict[str, Any] = {
    "anyOf": [JSON_SCHEMA, {"type": "string", "minLength": 2, "description": "The JSON of one."}]
}
TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
NULL: dict[str, Any] = {"type": "null"}
CHOICE: dict[str, Any] = {"type": "array", "minItems": 1, "maxItems": MAX_CHOICES, "items": TEXT}


def _object(properties: dict[str, Any], *optional: str) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


NAMED_SCHEMA = _object(
    {
        "name": TEXT,
        "description": {"type": ["string", "null"]},
        "schema": JSON_SCHEMA,
        "strict": {"type": ["boolean", "null"], "description": "The schema is held to either way."},
    },
    "description",
    "strict",
)
TGI_NAMED_SCHEMA = _object(
    {"name": {"anyOf": [TEXT, NULL]}, "schema": JSON_SCHEMA, "strict": {"type": ["boolean", "null"]}}, "name", "strict"
)
TGI_FORMS: list[dict[str, Any]] = [
    {"type": {"enum": ["json", "json_object"]}, "value": JSON_SCHEMA_OR_TEXT},
    {"type": {"const": "regex"}, "value": TEXT},
    {"type": {"const": "json_schema"}, "value": TGI_NAMED_SCHEMA},
]
TGI_GRAMMAR: dict[str, Any] = {"anyOf": [*map(_object, TGI_FORMS), NULL]}

FORM_FIELDS = dict.fromkeys(("json_schema", "schema", "value"), NULL)
FORMS: list[dict[str, Any]] = [
    {"type": {"enum": ["text", "json_object"]}},
    {"type": {"const": "json_schema"}, "json_schema": NAMED_SCHEMA},
    {"type": {"const": "json_object"}, "schema": JSON_SCHEMA_OR_TEXT},
    *TGI_FORMS,
]
"""OpenAI's, llama.cpp's and TGI's."""
RESPONSE_FORMAT: dict[str, Any] = {
    "anyOf": [*(_object(FORM_FIELDS | form, *(FORM_FIELDS.keys() - form.keys())) for form in FORMS), NULL]
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
