"""Structured output fields of OpenAI's and vLLM's clients. `server/schema/grammars.py` reads them."""

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from distilgpt2_api.server.schema.grammars import ALWAYS_ON, MAX_CHOICES
from distilgpt2_api.server.schema.validation import Body

JSON_SCHEMA: dict[str, Any] = {"type": "object", "description": "A JSON schema."}
JSON_SCHEMA_OR_TEXT: dict[str, Any] = {
    "anyOf": [JSON_SCHEMA, {"type": "string", "minLength": 2, "description": "A JSON schema as text."}]
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
        "strict": {"type": ["boolean", "null"], "description": "The schema is enforced either way."},
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
                **{name: {"type": ["boolean", "null"], "description": "No effect: always on."} for name in ALWAYS_ON},
            },
            "additionalProperties": False,
        },
        NULL,
    ]
}


def _or_null(schema: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [schema, NULL]})


class StructuredFields(Body):
    """At most one of them may be set. Null: any text."""

    response_format: Annotated[Any, WithJsonSchema(RESPONSE_FORMAT)] = Field(
        None,
        description="`json_object`, `json_schema` with its schema, or TGI's form with a `value`. Objects have no "
        "additional properties unless the schema allows them.",
    )
    structured_outputs: Annotated[Any, WithJsonSchema(STRUCTURED_OUTPUTS)] = Field(
        None,
        description="A JSON schema, a regular expression, a choice of texts, or a grammar as in `guided_grammar`.",
    )
    guided_json: Annotated[Any, _or_null(JSON_SCHEMA_OR_TEXT)] = Field(
        None, description="A JSON schema. Objects have no additional properties unless it allows them."
    )
    guided_regex: Annotated[Any, _or_null(TEXT)] = Field(
        None, description="A regular expression that the whole completion matches."
    )
    guided_choice: Annotated[Any, _or_null(CHOICE)] = Field(None, description="The completion is one of these texts.")
    guided_grammar: Annotated[Any, _or_null(TEXT)] = Field(
        None, description="A grammar in llguidance's dialect of Lark or, with `::=`, in GBNF."
    )
