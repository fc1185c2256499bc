"""The line format: what is read, what is refused and why, what is written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from distilgpt2_api.batch.custom_ids import CustomIds
from distilgpt2_api.batch.lines import (
    MAX_CUSTOM_ID_LENGTH,
    URLS,
    Answer,
    LineError,
    answered_line,
    failed_line,
    parse_line,
)


def line(**changes: object) -> bytes:
    fields = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "x"}} | changes
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode() + b"\n"


def refused(content: bytes, **options: Any) -> LineError:
    with pytest.raises(LineError) as caught:
        parse_line(content, number=7, **options)
    return caught.value


@pytest.mark.parametrize("url", URLS)
def test_a_valid_line_is_parsed(url: str) -> None:
    read = parse_line(line(custom_id="é 1", url=url, body={"prompt": "né", "n": 2, "stream": False}), number=3)
    assert (read.number, read.custom_id, read.url) == (3, "é 1", url)
    assert json.loads(read.body) == {"prompt": "né", "n": 2, "stream": False}


def test_a_body_is_passed_on_unchanged() -> None:
    """Even integers beyond 64 bits and floats keep their spelling, and the body doesn't grow."""
    body = '{"seed":123456789012345678901234567890,"temperature":0.1,"x":16.0,"prompt":"né😀"}'
    content = f'{{"custom_id":"a","method":"POST","url":"/v1/completions","body":{body}}}'
    assert parse_line(content.encode(), number=1).body.decode() == body


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"{", "invalid_json_line", "not valid JSON"),
        (b"[1]", "invalid_json_line", "must be an object"),
        (b'{"a": NaN}', "invalid_json_line", "not valid JSON"),
        (b'{"a": "\xff"}', "invalid_json_line", "not UTF-8: invalid start byte at byte 7"),
        (b'{"a": ' + b"[" * 2000 + b"]" * 2000 + b"}", "invalid_json_line", "not valid JSON"),
        (
            b'{"custom_id": "a", "custom_id": "b"}',
            "invalid_json_line",
            "not valid JSON: duplicate key 'custom_id'",
        ),
        (b'{"body": {"n": 1, "n": 2}}', "invalid_json_line", "not valid JSON: duplicate key 'n'"),
        (line(custom_id=...), "invalid_request", "custom_id: must be a string"),
        (line(custom_id=5), "invalid_request", "custom_id: must be a string"),
        (line(custom_id=""), "invalid_request", "custom_id: must be a string"),
        (line(custom_id="x" * (MAX_CUSTOM_ID_LENGTH + 1)), "invalid_request", "custom_id: must be a string"),
        (line(method=...), "invalid_request", "method: must be POST"),
        (line(method="GET"), "invalid_request", "method: must be POST"),
        (line(url=...), "url_mismatch", "url: must be /v1/completions or"),
        (line(url="/v1/embeddings"), "url_mismatch", "url: must be /v1/completions or"),
        (line(url=["/v1/completions"]), "url_mismatch", "url: must be"),
        (line(body=...), "invalid_request", "body: must be a JSON object"),
        (line(body="x"), "invalid_request", "body: must be a JSON object"),
        (line(body={"stream": True}), "invalid_request", "body.stream: a batch can't stream"),
        (line(priority=1), "invalid_request", "priority: unknown field"),
    ],
)
def test_an_invalid_line_is_refused_with_its_reason(content: bytes, code: str, message: str) -> None:
    error = refused(content)
    assert str(error).startswith(message)
    assert (error.code, error.number) == (code, 7)


def test_an_error_has_the_custom_id_if_it_could_be_read() -> None:
    assert (refused(line(custom_id="a", method="GET")).custom_id, refused(line(method="GET")).param) == ("a", "method")
    assert refused(b"{").custom_id is None


def test_the_allowed_routes_can_be_restricted() -> None:
    assert refused(line(), urls=["/v1/score"]).code == "url_mismatch"


def test_an_answer_has_openais_format() -> None:
    answer = Answer(status_code=200, request_id="r1", body=b'{"choices":[]}')
    written = answered_line("batch_req_1", "né", answer)
    assert (written.endswith(b"}\n"), written.count(b"\n"), answer.is_success) == (True, 1, True)
    assert json.loads(written) == {
        "id": "batch_req_1",
        "custom_id": "né",
        "response": {"status_code": 200, "request_id": "r1", "body": {"choices": []}},
        "error": None,
    }
    assert not Answer(status_code=400, request_id="r1", body=b"{}").is_success


def test_a_line_that_was_never_sent_is_written_with_its_reason() -> None:
    written = failed_line("batch_req_7", None, code="invalid_json_line", message="not valid JSON", number=7)
    assert json.loads(written) == {
        "id": "batch_req_7",
        "custom_id": None,
        "response": None,
        "error": {"code": "invalid_json_line", "message": "not valid JSON", "param": None, "line": 7},
    }


def test_a_duplicate_custom_id_is_refused() -> None:
    """The first line keeps it; the error names that line."""
    with CustomIds() as ids:
        for number in range(1, 50_000):
            ids.add(f"request-{number}", number=number)
        with pytest.raises(LineError, match="'request-30000' is already used by line 30000") as caught:
            ids.add("request-30000", number=50_000)
        ids.add("Request-30000", number=50_001)
    assert (caught.value.code, caught.value.number) == ("duplicate_custom_id", 50_000)
