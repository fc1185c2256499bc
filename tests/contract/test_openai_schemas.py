"""Bodies against the facts of OpenAI's published schemas, `CreateCompletionResponse` and `ErrorResponse`.

Stated in our own words: which keys are required, of which type, which may be null. A key that is neither in the
published schema nor among the extras named here is a mistake.
"""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

Json = dict[str, Any]


def closed(required: Json, optional: Json | None = None) -> Json:
    """A schema of an object with these keys and no others."""
    return {
        "type": "object",
        "required": [*required],
        "properties": {**required, **(optional or {})},
        "additionalProperties": False,
    }


def list_of(items: Json) -> Json:
    return {"type": "array", "items": items}


def or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


TEXT: Json = {"type": "string"}
COUNT: Json = {"type": "integer", "minimum": 0}
LOGPROB: Json = {"type": "number", "maximum": 0}

LOGPROBS = closed(
    {
        "text_offset": list_of(COUNT),
        # Null for the first token of an echoed prompt, as in the service that the schema describes.
        "token_logprobs": list_of(or_null(LOGPROB)),
        "tokens": list_of(TEXT),
        "top_logprobs": list_of(or_null({"type": "object", "additionalProperties": LOGPROB})),
    }
)

USAGE = closed(
    {"prompt_tokens": COUNT, "completion_tokens": COUNT, "total_tokens": COUNT},
    {"prompt_tokens_details": closed({"cached_tokens": COUNT})},
)

CHOICE_EXTRAS: Json = {
    "stop_reason": {"type": ["string", "integer", "null"]},
    "token_ids": list_of(COUNT),
    "prompt_token_ids": list_of(COUNT),
    "prompt_logprobs": list_of(
        or_null(
            {
                "type": "object",
                "propertyNames": {"pattern": "^[0-9]+$"},
                "additionalProperties": closed(
                    {"logprob": LOGPROB, "rank": or_null({"type": "integer", "minimum": 1}), "decoded_token": TEXT}
                ),
            }
        )
    ),
}
"""Fields that vLLM's clients read."""

FINISH_REASON: Json = {"enum": ["stop", "length", "content_filter"]}


def completion(choice: Json, usage: Json | None, **bounds: int) -> Json:
    envelope = {
        "id": TEXT,
        "object": {"const": "text_completion"},
        "created": COUNT,
        "model": TEXT,
        "choices": list_of(choice) | bounds,
    }
    if usage is None:
        return closed(envelope, {"system_fingerprint": TEXT})
    return closed({**envelope, "usage": usage}, {"system_fingerprint": TEXT})


def choice_with(finish_reason: Json) -> Json:
    base: Json = {"index": COUNT, "text": TEXT, "logprobs": or_null(LOGPROBS), "finish_reason": finish_reason}
    return closed(base, CHOICE_EXTRAS)


WHOLE = completion(choice_with(FINISH_REASON), USAGE, minItems=1)
CHUNK = completion(choice_with(or_null(FINISH_REASON)), None, minItems=1, maxItems=1)
CHUNK_BEFORE_USAGE = completion(choice_with(or_null(FINISH_REASON)), {"type": "null"}, minItems=1, maxItems=1)
CHUNK_WITH_USAGE = completion(choice_with(or_null(FINISH_REASON)), USAGE, minItems=1, maxItems=1)
USAGE_CHUNK = completion({}, USAGE, maxItems=0)

ERROR = closed({"error": closed({"message": TEXT, "type": TEXT, "param": or_null(TEXT), "code": or_null(TEXT)})})


def check(body: Json, schema: Json) -> None:
    jsonschema.Draft202012Validator(schema).validate(body)


REQUESTS: list[Json] = [
    {},
    {"prompt": ["once", "upon"], "n": 2},
    {"logprobs": 0},
    {"logprobs": 5, "echo": True},
    {"logprobs": 1, "echo": True, "max_tokens": 0},
    {"max_tokens": 0},
    {"stop": "e", "seed": 1},
    {"stop_token_ids": [*range(128)]},
    {"return_token_ids": True, "return_tokens_as_token_ids": True, "logprobs": 2},
    {"user": "someone", "request_id": "mine", "temperature": 0},
    {"prompt": None},
]


@pytest.mark.parametrize(
    "request_body",
    [
        *REQUESTS,
        {"prompt_logprobs": 3, "n": 2},
        {"best_of": 3, "n": 2, "logprobs": 1},
        {"use_beam_search": True, "n": 2, "logprobs": 1},
    ],
)
def test_a_whole_answer(server: Any, request_body: Json) -> None:
    answer = server.complete(**{"prompt": "once", **request_body})
    assert answer.status_code == 200, answer.text
    check(answer.json(), WHOLE)


@pytest.mark.parametrize("request_body", REQUESTS)
@pytest.mark.parametrize(
    ("stream_options", "schema"),
    [
        (None, CHUNK),
        ({"include_usage": True}, CHUNK_BEFORE_USAGE),
        ({"include_usage": True, "continuous_usage_stats": True}, CHUNK_WITH_USAGE),
    ],
)
def test_every_chunk_of_a_stream(
    server: Any, read_events: Any, request_body: Json, stream_options: Json | None, schema: Json
) -> None:
    """Each choice has its finish reason once, in its last chunk. The usage chunk comes last, without choices."""
    with server.stream(**{"ignore_eos": False, "stream_options": stream_options, **request_body}) as response:
        *chunks, done = read_events(response)
    assert done == "[DONE]"
    if (stream_options or {}).get("include_usage"):
        check(chunks.pop(), USAGE_CHUNK)
    for chunk in chunks:
        check(chunk, schema)
    last = {chunk["choices"][0]["index"]: chunk["choices"][0]["finish_reason"] for chunk in chunks}
    assert all(last.values())
    assert sum(chunk["choices"][0]["finish_reason"] is not None for chunk in chunks) == len(last)


@pytest.mark.parametrize(
    ("request_body", "status"),
    [
        ({"prompt": ""}, 400),
        ({"temperature": -1}, 400),
        ({"max_tokens": 10**6}, 400),
        ({"suffix": "end"}, 400),
        ({"unheard_of": 1}, 400),
        ({"model": "another"}, 404),
        ({"max_tokens": 16000, "ignore_eos": True, "timeout_s": 0.01}, 504),
    ],
)
def test_an_error(server: Any, request_body: Json, status: int) -> None:
    answer = server.complete(**{"prompt": "once", **request_body})
    assert answer.status_code == status
    check(answer.json(), ERROR)


def test_an_error_of_the_router(server: Any) -> None:
    for path in ("/v1/completions", "/v1/nothing"):
        answer = server.get(path)
        assert answer.status_code in {404, 405}
        check(answer.json(), ERROR)


def test_an_error_event_after_the_first_chunk(server: Any, read_events: Any) -> None:
    """It is the last event: no `[DONE]` makes it look like an end."""
    chunks: list[Any] = []
    last: Any = None
    for timeout_s in (0.5, 1, 2, 4, 8):
        with server.stream(max_tokens=16000, timeout_s=timeout_s) as response:
            if response.status_code == 504:
                continue  # a busy machine did not reach the first chunk
            assert response.status_code == 200
            *chunks, last = read_events(response)
            break
    assert chunks
    for chunk in chunks:
        check(chunk, CHUNK)
    check(last, ERROR)
    assert last["error"]["code"] == "deadline_exceeded"


@pytest.mark.parametrize("schema", [WHOLE, CHUNK, CHUNK_BEFORE_USAGE, CHUNK_WITH_USAGE, USAGE_CHUNK, ERROR])
def test_the_schemas_are_schemas(schema: Json) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)


def test_the_schemas_find_what_is_wrong() -> None:
    """A check that accepts everything would prove nothing."""
    body = {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "text": "a", "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
    check(body, WHOLE)
    for name in body:
        with pytest.raises(jsonschema.ValidationError):
            check({key: value for key, value in body.items() if key != name}, WHOLE)
    unfinished = json.loads(json.dumps(body).replace('"stop"', "null"))
    for wrong in (body | {"object": "completion"}, body | {"extra": 1}, body | {"choices": []}, unfinished):
        with pytest.raises(jsonschema.ValidationError):
            check(wrong, WHOLE)
    with pytest.raises(jsonschema.ValidationError):
        check({"error": {"message": "m", "type": "t", "param": 1, "code": None}}, ERROR)
