"""Digests of prompts' prefixes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from distilgpt2_api.scale_out.gateway.prefixes import CHUNK_CHARACTERS, MAX_CHUNKS, PrefixMemory, prefixes_of

PROMPT_KEYS = ("prompt", "inputs", "messages")
LONG = "abcdefgh" * 100


def prefixes(**fields: Any) -> tuple[bytes, ...]:
    return prefixes_of(json.dumps(fields).encode(), PROMPT_KEYS)


def test_one_digest_per_whole_chunk() -> None:
    assert len(prefixes(prompt=LONG)) == len(LONG) // CHUNK_CHARACTERS
    assert prefixes(prompt="x" * (CHUNK_CHARACTERS - 1)) == ()
    assert len(prefixes(prompt="x" * CHUNK_CHARACTERS * 1000)) == MAX_CHUNKS


def test_prompts_with_a_common_prefix_share_its_digests() -> None:
    one, other = prefixes(prompt=LONG + "1" * 500), prefixes(prompt=LONG + "2" * 500)

    assert one[:6] == other[:6]
    assert not set(one[6:]) & set(other[6:])


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": [LONG, "other"]},
        {"inputs": LONG},
        {"messages": [{"role": "user", "content": LONG}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": LONG}]}]},
    ],
)
def test_the_prompt_of_every_protocol(fields: Any) -> None:
    assert prefixes(**fields) == prefixes(prompt=LONG)


@pytest.mark.parametrize("prompt", [list(range(100)), [list(range(100)), [1]]])
def test_token_ids_are_a_prompt(prompt: Any) -> None:
    assert prefixes(prompt=prompt) == prefixes(prompt=[*range(100)])
    assert prefixes(prompt=prompt)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'{"prompt": 5}',
        b'{"prompt": [[]]}',
        b'{"prompt": [{}]}',
        b'{"prompt":' + b"[" * 2000 + b"]" * 2000 + b"}",
    ],
)
def test_an_invalid_body_has_none(body: bytes) -> None:
    assert prefixes_of(body, PROMPT_KEYS) == ()


def test_the_replica_with_the_longest_prefix_is_found() -> None:
    memory = PrefixMemory()
    memory.note([b"1"], "short")
    memory.note([b"1", b"2"], "long")
    memory.note([b"1"], "short")

    assert memory.find([b"1", b"2", b"3"], {"short", "long"}) == "long"
    assert memory.find([b"1", b"2", b"3"], {"short"}) == "short"
    assert memory.find([b"4"], {"short", "long"}) is None
    assert memory.find([], {"short"}) is None


def test_the_least_recently_used_prefix_is_evicted() -> None:
    memory = PrefixMemory(max_prefixes=2)
    memory.note([b"1"], "a")
    memory.note([b"2"], "b")
    memory.note([b"1"], "a")
    memory.note([b"3"], "c")

    holders = {"a", "b", "c"}
    assert [memory.find([prefix], holders) for prefix in (b"1", b"2", b"3")] == ["a", None, "c"]
