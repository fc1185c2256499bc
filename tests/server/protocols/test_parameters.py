"""The API page is true: the service is sent every parameter in its tables."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from huggingface_hub.inference._generated.types.text_generation import TextGenerationInputGenerateParameters
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params

from distilgpt2_api.cli.api_reference.parameters import (
    CHAT,
    COMPLETIONS,
    GENERATE,
    LLAMA_CPP,
    OLLAMA_GENERATE,
    OLLAMA_OPTIONS,
    SCORE,
    TABLES,
    ParameterTable,
    describe_schema,
    rows_of,
)
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.server.protocols.tgi.schema import TgiRequest
from distilgpt2_api.server.protocols.vllm.schema import DetokenizeRequest, TokenizeRequest
from distilgpt2_api.server.schema.no_ops import NO_OP_VALUES
from distilgpt2_api.server.schema.reference_apis import REFERENCE_APIS
from distilgpt2_api.server.schema.replacements import REPLACEMENTS
from distilgpt2_api.server.schema.validation import Body, replacement_in
from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate

Json = dict[str, Any]

MESSAGES = [{"role": "user", "content": "hi"}]
BODIES: dict[str, Json] = {
    COMPLETIONS.path: {"prompt": "a", "max_tokens": 1},
    CHAT.path: {"messages": MESSAGES, "max_completion_tokens": 1},
    GENERATE.path: {"inputs": "a", "parameters": {"max_new_tokens": 1}},
    OLLAMA_GENERATE.path: {"prompt": "a", "options": {"num_predict": 1}, "stream": False},
    LLAMA_CPP.path: {"prompt": "a", "n_predict": 1},
    OLLAMA_OPTIONS.path: {"messages": MESSAGES, "options": {"num_predict": 1}, "stream": False},
    SCORE.path: {"input": "ab"},
}
VALUES: dict[str, object] = {
    "format": {"type": "integer"},
    "grammar": {"type": "regex", "value": "1+"},
    "guided_choice": ["1"],
    "json_schema": {"type": "integer"},
    "guided_grammar": 'start: "1"',
    "guided_json": {"type": "integer"},
    "guided_regex": "1+",
    "input": "ab",
    "logit_bias": {"5": 1},
    "logprobs": True,
    "messages": MESSAGES,
    "min_tokens": 1,
    "mirostat": 2,
    "model": "tiny",
    "num_ctx": 100,
    "options": {"num_predict": 1},
    "prompt": "a",
    "request_id": "mine",
    "response_format": {"type": "json_schema", "json_schema": {"name": "number", "schema": {"type": "integer"}}},
    "stop": ["zzz"],
    "structured_outputs": {"choice": ["12"]},
    "chat_template_kwargs": {"shout": True},
}
"""Valid values of fields for which the schema alone gives none."""
MODELS: tuple[type[Body], ...] = (*(table.model for table in TABLES), TgiRequest, TokenizeRequest, DetokenizeRequest)
COMPANIONS: dict[str, Json] = {
    "best_of": {"do_sample": True},
    "stream_options": {"stream": True},
    "top_logprobs": {"logprobs": True},
    "length_penalty": {"use_beam_search": True, "logprobs": 1},
    "early_stopping": {"use_beam_search": True, "logprobs": 1},
}
"""Parameters that need another."""


@pytest.fixture
def client(open_client: Callable[..., Any], build_runner: Any) -> Any:
    """A client of a service that samples a 1, with which every grammar in `VALUES` begins."""
    template = "{% for m in messages %}{{ m.content }}{{ '!' if shout }}{% endfor %}"
    return open_client(chat_template=ChatTemplate(template, origin="test"), runner=build_runner(script=b"1"))


def post(client: Any, table: ParameterTable, parameters: Json) -> Any:
    body = BODIES[table.path]
    inner = body[table.prefix] if table.prefix else body
    merged = {**inner, **parameters}
    return client.post(table.path, json={**body, table.prefix: merged} if table.prefix else merged)


def sound_value(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> object:
    """A simple valid value."""
    branch = schema.get("anyOf", [schema])[0]
    value: object
    match branch:
        case {"$ref": str() as reference}:
            value = {next(iter(definitions[reference.rpartition("/")[2]]["properties"])): True}
        case {"const": value} | {"enum": [value, *_]}:
            pass
        case {"type": "array", "items": items}:
            value = [sound_value(items, definitions)]
        case {"type": "integer"}:
            value = max(1, branch.get("minimum", 1))
        case _:
            value = {"boolean": True, "number": max(0.5, branch.get("minimum", 0)), "string": "a"}[branch["type"]]
    return value


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.path)
def test_every_supported_parameter_works(client: Any, table: ParameterTable) -> None:
    schema = table.model.model_json_schema()
    for row in rows_of(table):
        if row.is_supported:
            value = VALUES.get(row.name)
            if row.name == "grammar" and table is LLAMA_CPP:
                value = 'root ::= "1"'
            elif value is None or (row.name == "logprobs" and table is COMPLETIONS):
                value = sound_value(schema["properties"][row.name], schema.get("$defs", {}))
            companions = {
                name: companion
                for name, companion in COMPANIONS.get(row.name, {}).items()
                if name in table.model.model_fields
            }
            answer = post(client, table, {row.name: value, **companions})
            assert answer.status_code == 200, (row.name, value, answer.text)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.path)
def test_every_refused_parameter_is_refused_by_name(client: Any, table: ParameterTable) -> None:
    for row in rows_of(table):
        if not row.is_supported:
            answer = post(client, table, {row.name: {"asks": "for something"}})
            assert answer.status_code in {400, 422}, (row.name, answer.text)
            assert row.name in answer.text


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.path)
def test_values_without_effect_are_accepted(client: Any, table: ParameterTable) -> None:
    for name, values in NO_OP_VALUES.items():
        for value in (None, *values):
            sent = "any" if value is str else value
            if not table.model.supports(name):
                answer = post(client, table, {name: sent})
                assert answer.status_code == 200, (name, sent, answer.text)


def test_every_refused_parameter_has_no_op_values() -> None:
    """At least null: parameters that only a reference API has are known by name."""
    for table in TABLES:
        referenced = {name for api in table.reference_apis for name in api.parameters}
        assert {name for name in referenced if not table.model.supports(name)} <= NO_OP_VALUES.keys(), table.path


def test_parameters_of_llama_cpp_are_refused_by_name_in_openais_protocol(client: Any) -> None:
    for name in REFERENCE_APIS["llama_cpp"].parameters:
        if not COMPLETIONS.model.supports(name):
            answer = post(client, COMPLETIONS, {name: {"asks": "for something"}})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


@pytest.mark.reported("users of llama.cpp, Ollama and TGI: their parameters were refused without a hint")
@pytest.mark.parametrize(
    ("table", "name", "expected"),
    [
        (COMPLETIONS, "n_predict", "use `max_tokens`"),
        (COMPLETIONS, "num_predict", "use `max_tokens`"),
        (COMPLETIONS, "repeat_penalty", "use `repetition_penalty`, over prompt and completion"),
        (COMPLETIONS, "top_n_tokens", "use `logprobs`"),
        (COMPLETIONS, "inputs", "use `prompt`"),
        (COMPLETIONS, "messages", "use `prompt`, or send a chat to /v1/chat/completions"),
        (COMPLETIONS, "include_usage", "use `stream_options.include_usage`"),
        (CHAT, "max_new_tokens", "use `max_tokens`"),
        (CHAT, "prompt", "use `messages`"),
        (CHAT, "stop_sequences", "use `stop`"),
        (GENERATE, "max_tokens", "use `max_new_tokens`"),
        (GENERATE, "response_format", "use `grammar`"),
        (OLLAMA_GENERATE, "response_format", "use `format`"),
        (OLLAMA_OPTIONS, "max_tokens", "use `num_predict`"),
        (OLLAMA_OPTIONS, "repetition_penalty", "use `repeat_penalty`"),
        (SCORE, "prompt", "use `input`"),
    ],
    ids=lambda value: getattr(value, "path", str(value)),
)
def test_an_unknown_parameter_that_is_known_elsewhere_names_its_replacement(
    client: Any, table: ParameterTable, name: str, expected: str
) -> None:
    answer = post(client, table, {name: {"asks": "for something"}})
    message = answer.json()["error"]
    assert expected in (message["message"] if isinstance(message, dict) else message)


def test_a_parameter_at_the_wrong_level_is_told_the_right_one(client: Any) -> None:
    answer = client.post("/generate", json={"inputs": "a", "max_new_tokens": 1})
    assert (answer.status_code, "use `parameters.max_new_tokens`" in answer.text) == (422, True)


def test_every_replacement_is_a_parameter_of_a_route() -> None:
    """A replacement is needed: at least one route lacks the name and has the replacement."""
    for name, replacement in REPLACEMENTS.items():
        for ours in replacement.names:
            assert any(replacement_in(model, ours) for model in MODELS), (name, ours)
        found = [replacement_in(model, name) for model in MODELS if not model.supports(name)]
        assert any(found), name


@pytest.mark.parametrize("table", [COMPLETIONS, CHAT], ids=lambda table: table.path)
def test_defaults_are_those_that_the_engine_gets(client: Any, table: ParameterTable) -> None:
    assert post(client, table, {}).status_code == 200
    params: SamplingParams = client.scene.runner.plans[-1].rows[0].params
    told = {name: value for name, value in table.defaults.items() if name not in {"max_tokens", "seed"}}
    for name, value in told.items():
        if hasattr(params, name):
            assert getattr(params, name) == value, name


def test_the_reference_apis_match_their_clients() -> None:
    """A new release may have a parameter that the page does not know."""
    for key, module, base in (
        ("openai_completion", completion_create_params, "CompletionCreateParams"),
        ("openai_chat", chat_create_params, "CompletionCreateParams"),
    ):
        names: set[str] = set()
        for suffix in ("Base", "NonStreaming", "Streaming"):
            names |= typing.get_type_hints(getattr(module, base + suffix)).keys()
        assert names == set(REFERENCE_APIS[key].parameters)
    names = {item.name for item in dataclasses.fields(TextGenerationInputGenerateParameters)}
    assert names == set(REFERENCE_APIS["tgi"].parameters)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]}, "integer from 0"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1.5}, "number above 0 to 1.5"),
        ({"type": "array", "maxItems": 4, "items": {"type": "string"}}, "list of at most 4 strings"),
        ({"anyOf": [{"const": -1}, {"type": "boolean"}]}, "`-1` or boolean"),
        ({"type": "object", "additionalProperties": True}, "object"),
        ({}, "any"),
    ],
)
def test_a_schema_is_described(schema: Json, words: str) -> None:
    assert describe_schema(schema, {}) == words
