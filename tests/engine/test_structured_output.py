"""Grammars on real kernels, with the bundled model: completions follow them, and other sequences are not affected."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.scripted_runner import ENGINE_CONFIG

import distilgpt2_api
from distilgpt2_api.core.events import SilentObserver
from distilgpt2_api.core.grammar import Grammar, GrammarKind
from distilgpt2_api.core.outputs import FinishReason, SequenceDelta
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.engine import Engine
from distilgpt2_api.engine.factory import load_engine
from distilgpt2_api.engine.sync import run_request
from distilgpt2_api.server.schema.grammars import openai_grammar, tgi_grammar

RequestBuilder = Callable[..., GenerationRequest]
STORYTELLER = Path(distilgpt2_api.__file__).parent / "models" / "storyteller"
WORD = {"type": "string", "pattern": "^[a-z]{1,8}$"}
SCHEMAS: list[dict[str, Any]] = [
    {
        "type": "object",
        "properties": {
            "name": WORD,
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "is_kind": {"type": "boolean"},
        },
        "required": ["name", "age", "is_kind"],
        "additionalProperties": False,
    },
    {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 1, "maxItems": 4},
    {
        "type": "object",
        "properties": {"animals": {"type": "array", "items": {"$ref": "#/$defs/animal"}, "minItems": 1, "maxItems": 2}},
        "required": ["animals"],
        "additionalProperties": False,
        "$defs": {
            "animal": {
                "type": "object",
                "properties": {"kind": WORD, "legs": {"enum": [2, 4, 6]}},
                "required": ["kind", "legs"],
                "additionalProperties": False,
            }
        },
    },
]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    config = replace(
        ENGINE_CONFIG, max_num_sequences=40, max_step_tokens=512, max_batch_step_tokens=512, max_draft_tokens=15
    )
    engine = load_engine(STORYTELLER, config, cache_folder=None, observer=SilentObserver(), report=lambda note: None)
    yield engine
    engine.close()


def encode(engine: Engine, text: str) -> list[int]:
    return engine.tokenizer.encode(text)


def text_of(deltas: list[SequenceDelta], index: int = 0) -> str:
    return "".join(delta.text for delta in deltas if delta.index == index)


@pytest.mark.parametrize("schema", SCHEMAS, ids=["object", "array", "nested"])
def test_a_completion_validates_against_its_schema(
    engine: Engine, build_request: RequestBuilder, schema: dict[str, Any]
) -> None:
    """With every seed, and complete although it was streamed."""
    request = build_request(
        encode(engine, "Once upon a time"),
        grammar=Grammar(GrammarKind.JSON_SCHEMA, json.dumps(schema)),
        num_sequences=6,
        max_tokens=150,
        temperature=1.2,
        seed=7,
    )

    deltas = list(run_request(engine, request))

    texts = [text_of(deltas, index) for index in range(6)]
    for text in texts:
        jsonschema.validate(json.loads(text), schema)
    assert len(set(texts)) > 1
    assert {delta.finish_reason for delta in deltas} == {None, FinishReason.STOP}


CHOICE = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}
NAMED = {"name": "choice", "schema": CHOICE}
FORMS: dict[str, tuple[Grammar, str] | Grammar | None] = {
    "guided_json": openai_grammar(guided_json=CHOICE),
    "guided_json, a text": openai_grammar(guided_json=json.dumps(CHOICE)),
    "structured_outputs": openai_grammar(structured_outputs={"json": CHOICE}),
    "response_format": openai_grammar(response_format={"type": "json_schema", "json_schema": NAMED}),
    "strict": openai_grammar(response_format={"type": "json_schema", "json_schema": {**NAMED, "strict": True}}),
    "not strict": openai_grammar(response_format={"type": "json_schema", "json_schema": {**NAMED, "strict": False}}),
    "TGI": tgi_grammar({"type": "json", "value": CHOICE}),
    "TGI, named": tgi_grammar({"type": "json_schema", "value": NAMED}),
}


@pytest.mark.reported("outlines and instructor with pydantic models: JSON that ran to the length limit")
@pytest.mark.parametrize("form", FORMS)
def test_a_schema_with_additional_properties_gives_complete_json_with_every_seed(
    engine: Engine, build_request: RequestBuilder, form: str
) -> None:
    found = FORMS[form]
    grammar = found[0] if isinstance(found, tuple) else found
    for seed in range(10):
        request = build_request(encode(engine, "Once"), grammar=grammar, max_tokens=60, temperature=1.0, seed=seed)

        deltas = list(run_request(engine, request))

        assert json.loads(text_of(deltas)) in ({"a": "x"}, {"a": "y"})
        assert deltas[-1].finish_reason is FinishReason.STOP


@pytest.mark.parametrize(
    "pattern", ["[A-Z][a-z]{2,6} (said|asked)\\.", "[0-9]{4}-[0-9]{2}-[0-9]{2}", "(é|ü|東京){3}", 'a/b\n"c"']
)
def test_a_completion_matches_its_regular_expression(
    engine: Engine, build_request: RequestBuilder, pattern: str
) -> None:
    grammar = Grammar(GrammarKind.REGEX, pattern)
    for seed in range(4):
        deltas = list(run_request(engine, build_request(encode(engine, "One day"), grammar=grammar, seed=seed)))

        assert re.fullmatch(pattern, text_of(deltas))
        assert all("\ufffd" not in delta.text for delta in deltas)


def test_a_completion_is_one_of_its_choices(engine: Engine, build_request: RequestBuilder) -> None:
    """With any characters."""
    choices = [
        "good",
        "bad",
        'a "quoted" one',
        "back\\slash",
        "two\nlines",
        "(a|b)*",
        "/slash/",
        "é — 東京",
        " a",
        "\t\x00",
    ]
    read = openai_grammar(guided_choice=choices)
    assert read is not None
    seen = set()
    for seed in range(80):
        request = build_request(encode(engine, "It was"), grammar=read[0], seed=seed, temperature=2.0)
        seen.add(text_of(list(run_request(engine, request))))

    assert seen <= set(choices)
    assert len(seen) > 1


@pytest.mark.parametrize(
    "choice", ['a "quoted" one', "back\\slash\\n", "two\nlines", "(a|b)*", "/slash/", "東京", "\x00"]
)
def test_a_choice_is_taken_literally(engine: Engine, build_request: RequestBuilder, choice: str) -> None:
    read = openai_grammar(guided_choice=[choice])
    assert read is not None

    deltas = list(run_request(engine, build_request(encode(engine, "It was"), grammar=read[0])))

    assert (text_of(deltas), deltas[-1].finish_reason) == (choice, FinishReason.STOP)


def test_sequences_beside_guided_ones_are_not_affected(engine: Engine, build_request: RequestBuilder) -> None:
    """31 greedy sequences have the same tokens with and without a guided one beside them."""

    def complete_all(guided: bool) -> dict[str, tuple[int, ...]]:
        requests = [
            build_request(
                encode(engine, f"Once there were {index} birds"), request_id=str(index), temperature=0.0, max_tokens=24
            )
            for index in range(31)
        ]
        if guided:
            grammar = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(SCHEMAS[0]))
            requests.append(build_request(encode(engine, "A boy"), request_id="guided", grammar=grammar, max_tokens=60))
        for request in requests:
            engine.add(request, submitted_s=0.0)
        token_ids: dict[str, tuple[int, ...]] = {}
        while engine.has_work:
            for request_id, deltas in engine.step().deltas.items():
                for delta in deltas:
                    token_ids[request_id] = token_ids.get(request_id, ()) + delta.token_ids
        return token_ids

    alone, beside = complete_all(guided=False), complete_all(guided=True)

    assert len(beside.pop("guided")) > 0
    assert beside == alone


def test_log_probabilities_are_the_models_own(engine: Engine, build_request: RequestBuilder) -> None:
    """Not those after the mask."""
    request = build_request(
        encode(engine, "Once"), grammar=Grammar(GrammarKind.REGEX, "[0-9]{3}"), num_logprobs=1, temperature=0.0
    )

    logprobs = [entry for delta in run_request(engine, request) for entry in delta.logprobs]

    first = logprobs[0]
    assert first.top[0][0] != first.token_id  # after "Once" the model would write no digit
    assert first.top[0][1] > first.logprob
