"""Limits on all bodies together, and on the number of values in one body."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.core.errors import InvalidRequestError, OverloadedError
from distilgpt2_api.server.http.requests.body import INLINE_BYTES, MAX_STRUCTURE, Uploads, parse_json_object


def test_all_uploads_together_are_limited_and_release_their_bytes() -> None:
    uploads = Uploads(100)
    uploads.add(60)
    uploads.add(40)
    with pytest.raises(OverloadedError):
        uploads.add(1)
    uploads.remove(1)
    uploads.remove(60)
    uploads.add(50)
    assert uploads.num_bytes == 90


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": [' + b"[]," * MAX_STRUCTURE + b"0]}",
        b'{"a": [' + b"{}," * MAX_STRUCTURE + b"0]}",
        b"{" + b",".join(b'"%d": 0' % number for number in range(MAX_STRUCTURE + 1)) + b"}",
    ],
)
def test_a_body_of_too_many_values_is_refused_before_it_is_parsed(body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match=f"lists, objects and members together; at most {MAX_STRUCTURE}"):
        parse_json_object(body)


def test_structural_characters_in_a_string_do_not_count() -> None:
    text = r"[{\":" * (MAX_STRUCTURE // 2)
    assert parse_json_object(b'{"prompt": "' + text.encode() + b'"}').keys() == {"prompt"}
    ids = parse_json_object(b'{"prompt": [' + b"1," * 200_000 + b"2]}")["prompt"]
    assert isinstance(ids, list)
    assert len(ids) == 200_001


@pytest.mark.reported("a trial of twenty long bodies at once: streams paused for a second")
def test_long_bodies_are_parsed_one_at_a_time_and_short_ones_do_not_wait(open_client: Callable[..., Any]) -> None:
    client = open_client(max_body_bytes=4 * INLINE_BYTES, max_uploads_bytes=4 * INLINE_BYTES)
    uploads = client.scene.app.state.service.uploads
    short = {"prompt": "ab", "max_tokens": 1}
    long = {**short, "user": "u" * INLINE_BYTES}

    async def play() -> None:
        async with uploads.parsing:
            waiting = asyncio.create_task(client._http.post("/v1/completions", json=long))
            assert (await client._http.post("/v1/completions", json=short)).status_code == 200
            assert not waiting.done()
        assert (await waiting).status_code == 200

    client.runner.run(play())
