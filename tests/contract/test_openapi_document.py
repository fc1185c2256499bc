"""The OpenAPI document is true: its examples work, and events of streams are those that it describes."""

from __future__ import annotations

import json
from typing import Any

import httpx
import jsonschema
import pytest
from tests.e2e.conftest import DEADLINE_S, Service

Json = dict[str, Any]


@pytest.fixture(scope="module")
def document(small_server: Service) -> Json:
    document: Json = small_server.get("/openapi.json").json()
    return document


def test_every_post_has_examples_and_they_work(small_server: Service, document: Json) -> None:
    """A batch's with an existing file. Forms and requests without a body have no examples."""
    posts = {path: item["post"] for path, item in document["paths"].items() if "post" in item}
    line = b'{"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "a"}}'
    form = {"files": {"file": ("input", line)}, "data": {"purpose": "batch"}}
    file_id = httpx.post(f"{small_server.url}/v1/files", timeout=DEADLINE_S, **form).json()["id"]  # type: ignore[arg-type]  # a dictionary of options
    for path, operation in posts.items():
        if path in {"/v1/files", "/v1/batches/{batch_id}/cancel"}:
            continue
        examples = operation["requestBody"]["content"]["application/json"]["examples"]
        assert examples, path
        for name, example in examples.items():
            body = example["value"] | ({"input_file_id": file_id} if "input_file_id" in example["value"] else {})
            answer = httpx.post(small_server.url + path, json=body, timeout=DEADLINE_S)
            assert answer.status_code == 200, (path, name, answer.text)


STREAMS: dict[str, list[Json]] = {
    "/v1/completions": [
        {"prompt": "on", "stream": True, "max_tokens": 5},
        {"prompt": "on", "stream": True, "max_tokens": 5, "logprobs": 2, "echo": True, "n": 2},
        {"prompt": ["on", "a"], "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 3},
    ],
    "/v1/chat/completions": [
        {"messages": [{"role": "user", "content": "on"}], "stream": True, "max_tokens": 5},
        {
            "messages": [{"role": "user", "content": "on"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "logprobs": True,
            "top_logprobs": 2,
            "n": 2,
            "max_tokens": 5,
        },
    ],
    "/": [{"inputs": "on", "stream": True, "parameters": {"max_new_tokens": 4, "details": True, "top_n_tokens": 2}}],
    "/generate_stream": [{"inputs": "on", "parameters": {"max_new_tokens": 4}}],
    "/api/generate": [
        {"prompt": "on", "options": {"num_predict": 4}},
        {"prompt": "on", "logprobs": True, "top_logprobs": 2, "raw": True, "options": {"num_predict": 4}},
    ],
    "/completion": [
        {"prompt": ["on", "a"], "stream": True, "n_predict": 4, "n_probs": 2, "timings_per_token": True},
    ],
    "/api/chat": [{"messages": [{"role": "user", "content": "on"}], "options": {"num_predict": 4}}],
}
"""Requests for streams, by path: `tests/conformance` checks the frame of an event, these what its data are."""


@pytest.mark.parametrize(("path", "body"), [(path, body) for path, bodies in STREAMS.items() for body in bodies])
def test_every_event_matches_the_documented_schema(
    small_server: Service, document: Json, path: str, body: Json
) -> None:
    answer = httpx.post(small_server.url + path, json=body, timeout=DEADLINE_S)
    assert answer.status_code == 200, answer.text
    content_type = answer.headers["content-type"].partition(";")[0]
    schema = document["paths"][path]["post"]["responses"]["200"]["content"][content_type]["itemSchema"]
    events = answer.text.splitlines()
    if content_type == "text/event-stream":
        events = [line.removeprefix("data:").strip() for line in events if line.startswith("data:")]
        data_schema = schema["properties"]["data"]
        choices = data_schema.get("anyOf", [data_schema])
        if any(choice.get("const") == "[DONE]" for choice in choices):
            assert events.pop() == "[DONE]"
        schema = next(choice["contentSchema"] for choice in choices if "contentSchema" in choice)
    validator = jsonschema.Draft202012Validator({**schema, "components": document["components"]})
    assert events
    for event in events:
        validator.validate(json.loads(event))
