"""Structured output fields of three protocols as grammars, and the errors for invalid ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from distilgpt2_api.core.errors import InvalidRequestError, UnsupportedParameterError
from distilgpt2_api.core.grammar import Grammar, GrammarKind
from distilgpt2_api.server.schema.grammars import llama_grammar, openai_grammar, tgi_grammar

SCHEMA = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"const": "é"}}}
SOURCE = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(SCHEMA, ensure_ascii=False))
ANY_OBJECT = Grammar(GrammarKind.JSON_SCHEMA, '{"type":"object"}')
YES_OR_NO = Grammar(GrammarKind.LARK, 'start: CHOICE\nCHOICE: "yes" | "no \\"\\\\\\n"')
DIGITS = Grammar(GrammarKind.REGEX, "[0-9]+")


def named(**fields: object) -> dict[str, object]:
    return {"type": "json_schema", "json_schema": {"name": "animal", "schema": SCHEMA, **fields}}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"response_format": None}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, (ANY_OBJECT, "response_format")),
        ({"response_format": named()}, (SOURCE, "response_format.json_schema.schema")),
        (
            {"response_format": named(strict=True, description="of a zoo")},
            (SOURCE, "response_format.json_schema.schema"),
        ),
        ({"response_format": named(strict=None)}, (SOURCE, "response_format.json_schema.schema")),
        ({"guided_json": SCHEMA}, (SOURCE, "guided_json")),
        ({"guided_json": json.dumps(SCHEMA)}, (SOURCE, "guided_json")),
        ({"guided_regex": "[0-9]+"}, (DIGITS, "guided_regex")),
        ({"guided_choice": ["yes", 'no "\\\n', "yes"]}, (YES_OR_NO, "guided_choice")),
        ({"guided_grammar": 'start: "a"'}, (Grammar(GrammarKind.LARK, 'start: "a"'), "guided_grammar")),
        ({"structured_outputs": {"json": SCHEMA}}, (SOURCE, "structured_outputs.json")),
        ({"structured_outputs": {"regex": "[0-9]+", "json": None}}, (DIGITS, "structured_outputs.regex")),
        ({"structured_outputs": {"choice": ["yes", 'no "\\\n']}}, (YES_OR_NO, "structured_outputs.choice")),
        (
            {"structured_outputs": {"grammar": 'start: "a"'}},
            (Grammar(GrammarKind.LARK, 'start: "a"'), "structured_outputs.grammar"),
        ),
        ({"structured_outputs": {"json_object": True}}, (ANY_OBJECT, "structured_outputs.json_object")),
        (
            {"structured_outputs": {"regex": "[0-9]+", "json_object": False, "disable_any_whitespace": False}},
            (DIGITS, "structured_outputs.regex"),
        ),
        (
            {"structured_outputs": {"json": SCHEMA, "disable_any_whitespace": True, "disable_fallback": True}},
            (SOURCE, "structured_outputs.json"),
        ),
        (
            {"structured_outputs": {"json": SCHEMA, "disable_additional_properties": True}},
            (SOURCE, "structured_outputs.json"),
        ),
        ({"response_format": {"type": "text"}, "guided_regex": "[0-9]+"}, (DIGITS, "guided_regex")),
    ],
)
def test_what_openai_and_vllm_clients_send_becomes_a_grammar(
    fields: dict[str, Any], expected: tuple[Grammar, str] | None
) -> None:
    """With the name of its field. Properties keep their order, which is the order in the answer."""
    assert openai_grammar(**fields) == expected


@pytest.mark.reported("TGI's chat, whose response_format is its grammar, and llama.cpp's with a schema beside the type")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"type": "json_object", "value": SCHEMA}, (SOURCE, "response_format.value")),
        ({"type": "json", "value": json.dumps(SCHEMA)}, (SOURCE, "response_format.value")),
        ({"type": "regex", "value": "[0-9]+"}, (DIGITS, "response_format.value")),
        ({"type": "json_schema", "value": {"schema": SCHEMA}}, (SOURCE, "response_format.value")),
        ({"type": "json_object", "schema": SCHEMA}, (SOURCE, "response_format.schema")),
        ({"type": "json_object", "value": None}, (ANY_OBJECT, "response_format")),
    ],
)
def test_other_servers_forms_of_response_format(value: object, expected: tuple[Grammar, str]) -> None:
    assert openai_grammar(response_format=value) == expected
    assert tgi_grammar({"type": "json_object", "value": SCHEMA}) == SOURCE


@pytest.mark.reported("guidance's client of vLLM, which sends the same grammar under its old and its new name")
def test_two_equal_grammars_count_as_one() -> None:
    grammar = 'start: "a"'
    fields = {"guided_grammar": grammar, "structured_outputs": {"grammar": grammar}}
    assert openai_grammar(**fields) == (Grammar(GrammarKind.LARK, grammar), "guided_grammar")
    both = {"response_format": named(), "guided_json": json.dumps(SCHEMA), "structured_outputs": {"json": SCHEMA}}
    assert openai_grammar(**both) == (SOURCE, "response_format.json_schema.schema")
    with pytest.raises(
        InvalidRequestError, match=r"structured_outputs.grammar and guided_grammar request different grammars"
    ):
        openai_grammar(guided_grammar=grammar, structured_outputs={"grammar": 'start: "b"'})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "json_object"}, "response_format"),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": ["text"]}}, "response_format.type"),
        ({"response_format": {"type": "text", "schema": {}}}, "response_format.schema"),
        ({"response_format": {"type": "json_object", "schema": {}, "value": {}}}, "response_format"),
        ({"response_format": {"type": "json_object", "value": "{"}}, "response_format.value"),
        ({"response_format": {"type": "yaml", "value": {}}}, "response_format.type"),
        ({"response_format": {"type": "json_object", "json_schema": {}}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": named(name=None)}, "response_format.json_schema.name"),
        ({"response_format": named(name="")}, "response_format.json_schema.name"),
        ({"response_format": named(schema=None)}, "response_format.json_schema.schema"),
        ({"response_format": named(schema="{}")}, "response_format.json_schema.schema"),
        ({"response_format": named(strict="yes")}, "response_format.json_schema.strict"),
        ({"response_format": named(description=1)}, "response_format.json_schema.description"),
        ({"response_format": named(extra=1)}, "response_format.json_schema.extra"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_json": "[" * 100_000}, "guided_json"),
        ({"guided_json": "3"}, "guided_json"),
        ({"guided_json": [1]}, "guided_json"),
        ({"guided_json": {"maximum": float("inf")}}, "guided_json"),
        ({"guided_regex": ""}, "guided_regex"),
        ({"guided_regex": 3}, "guided_regex"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_choice": ["a", ""]}, "guided_choice"),
        ({"guided_choice": ["a", 1]}, "guided_choice"),
        ({"guided_choice": "ab"}, "guided_choice"),
        ({"guided_choice": ["a"] * 10_001}, "guided_choice"),
        ({"guided_grammar": {}}, "guided_grammar"),
        ({"structured_outputs": []}, "structured_outputs"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"json": {}, "regex": "a"}}, "structured_outputs"),
        ({"structured_outputs": {"json_object": "yes"}}, "structured_outputs.json_object"),
        ({"structured_outputs": {"yaml": {}}}, "structured_outputs.yaml"),
        (
            {"structured_outputs": {"json": {}, "disable_any_whitespace": "no"}},
            "structured_outputs.disable_any_whitespace",
        ),
        ({"guided_json": {}, "guided_regex": "a"}, "guided_regex"),
        ({"response_format": {"type": "json_object"}, "guided_choice": ["a"]}, "guided_choice"),
    ],
)
def test_malformed_values_are_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        openai_grammar(**fields)

    assert refused.value.param == param
    assert param in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("name", ["structural_tag", "whitespace_pattern"])
def test_other_vllm_options_are_not_supported(name: str) -> None:
    with pytest.raises(UnsupportedParameterError) as refused:
        openai_grammar(structured_outputs={"regex": "a", name: "x"})

    assert refused.value.param == f"structured_outputs.{name}"


def test_a_grammar_with_gbnfs_sign_is_gbnf() -> None:
    """Users of xgrammar send it to vLLM in `guided_grammar`."""
    grammar = Grammar(GrammarKind.GBNF, 'root ::= "a"')
    assert openai_grammar(guided_grammar=grammar.source) == (grammar, "guided_grammar")
    assert llama_grammar(None, grammar.source) == (grammar, "grammar")
    assert llama_grammar(None, "") is None


@pytest.mark.parametrize(
    ("values", "param"), [(("{}", None), "json_schema"), (({}, 'root ::= "a"'), "grammar"), (([], None), "json_schema")]
)
def test_llama_cpps_errors_name_the_parameter(values: tuple[object, str | None], param: str) -> None:
    with pytest.raises(InvalidRequestError) as error:
        llama_grammar(*values)
    assert error.value.param == param


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ({"type": "json", "value": SCHEMA}, SOURCE),
        ({"type": "json", "value": json.dumps(SCHEMA)}, SOURCE),
        ({"type": "regex", "value": "[0-9]+"}, DIGITS),
        ({"type": "json_schema", "value": {"name": "animal", "schema": SCHEMA}}, SOURCE),
        ({"type": "json_schema", "value": {"schema": SCHEMA}}, SOURCE),
    ],
)
def test_what_tgi_clients_send_becomes_a_grammar(value: object, expected: Grammar | None) -> None:
    assert tgi_grammar(value) == expected


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ("[0-9]+", "parameters.grammar"),
        ({"type": "regex"}, "parameters.grammar.value"),
        ({"value": {}}, "parameters.grammar.type"),
        ({"type": "lark", "value": ""}, "parameters.grammar.type"),
        ({"type": "regex", "value": {}}, "parameters.grammar.value"),
        ({"type": "json", "value": 3}, "parameters.grammar.value"),
        ({"type": "json_schema", "value": SCHEMA}, "parameters.grammar.value.type"),
        ({"type": "json_schema", "value": {"name": 3, "schema": SCHEMA}}, "parameters.grammar.value.name"),
        ({"type": "json", "value": {}, "strict": True}, "parameters.grammar.strict"),
    ],
)
def test_malformed_tgi_grammars_are_refused_by_name(value: object, param: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        tgi_grammar(value)

    assert refused.value.param == param
