"""TGI's bodies, whole and event by event: as `huggingface_hub` has them, generated from TGI's specification."""

from __future__ import annotations

import dataclasses
import json
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import httpx
import pytest
from huggingface_hub import (
    TextGenerationInputGenerateParameters,
    TextGenerationOutput,
    TextGenerationStreamOutput,
)

Json = dict[str, Any]
FULL = {"details": True, "top_n_tokens": 2, "max_new_tokens": 6, "do_sample": True}
NULL_ALLOWED = {"TextGenerationOutputPrefillToken.logprob"}
"""TGI's router writes null for the first prompt token, though its specification has no null there."""


def check(value: Any, kind: Any, where: str) -> None:
    """`value` is JSON of the type `kind`: no field missing, none too many, none of another type."""
    origin = get_origin(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        fields = {field.name: field for field in dataclasses.fields(kind)}
        assert isinstance(value, dict), where
        assert value.keys() <= fields.keys(), f"{where}: {value.keys() - fields.keys()}"
        missing = {name for name, field in fields.items() if field.default is dataclasses.MISSING} - value.keys()
        assert not missing, f"{where}: {missing}"
        for name, item in value.items():
            check(item, hints[name], f"{kind.__name__}.{name}")
    elif origin in {Union, types.UnionType}:
        choices = get_args(kind)
        if value is None:
            assert type(None) in choices, where
        else:
            [choice] = [choice for choice in choices if choice is not type(None)]
            check(value, choice, where)
    elif origin is list:
        assert isinstance(value, list), where
        for item in value:
            check(item, get_args(kind)[0], where)
    elif origin is Literal:
        assert value in get_args(kind), where
    elif value is None:
        assert where in NULL_ALLOWED, where
    else:
        assert type(value) is kind or (kind is float and type(value) is int), f"{where}: {value!r}"


def post(server: Any, path: str, **body: Any) -> httpx.Response:
    return httpx.post(server.url + path, json={"inputs": "once", **body}, timeout=30)


@pytest.mark.parametrize(
    "parameters",
    [
        None,
        {"max_new_tokens": 3},
        FULL,
        {**FULL, "decoder_input_details": True, "return_full_text": True, "seed": 3},
        {**FULL, "decoder_input_details": True, "best_of": 3},
        {**FULL, "do_sample": False, "stop": ["e", "t"]},
    ],
    ids=str,
)
def test_answers_have_the_published_fields(server: Any, parameters: Json | None) -> None:
    whole = post(server, "/generate", parameters=parameters).json()
    check(whole, TextGenerationOutput, "answer")
    [listed] = post(server, "/", parameters=parameters).json()
    check(listed, TextGenerationOutput, "answer")


@pytest.mark.parametrize("path", ["/", "/generate_stream"])
@pytest.mark.parametrize("parameters", [{"max_new_tokens": 3}, FULL, {**FULL, "seed": 3, "stop": ["e"]}], ids=str)
def test_events_have_the_published_fields(server: Any, parameters: Json, path: str) -> None:
    answer = post(server, path, parameters=parameters, stream=True)
    *events, end = answer.text.split("\n\n")
    assert end == ""
    assert events
    for event in events:
        assert event.startswith("data:{")
        check(json.loads(event.removeprefix("data:")), TextGenerationStreamOutput, "event")


def test_every_published_parameter_is_in_our_document(server: Any) -> None:
    """Our document has no others."""
    schemas = server.get("/openapi.json").json()["components"]["schemas"]
    published = {field.name for field in dataclasses.fields(TextGenerationInputGenerateParameters)}
    assert schemas["TgiParameters"]["properties"].keys() == published
