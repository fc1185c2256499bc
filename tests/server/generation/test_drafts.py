"""Streams with speculative decoding, where a step gains several tokens: the same bytes as without drafts."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from tests.scripted_runner import ScriptedRunner

Json = dict[str, Any]
REQUESTS: list[tuple[str, Json]] = [
    ("/v1/completions", {"prompt": "once", "max_tokens": 40, "stream": True, "logprobs": 2}),
    (
        "/v1/completions",
        {
            "prompt": "once",
            "max_tokens": 23,
            "n": 2,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    ),
    ("/v1/completions", {"prompt": "once", "max_tokens": 40, "stop": ["cä"], "stream": True}),
    ("/v1/completions", {"prompt": "once", "max_tokens": 40, "logprobs": 2}),
    ("/generate_stream", {"inputs": "once", "parameters": {"max_new_tokens": 40, "details": True, "top_n_tokens": 2}}),
    ("/generate_stream", {"inputs": "once", "parameters": {"max_new_tokens": 20, "stop": ["cä"]}}),
]


def choice_of(event: str) -> str:
    return "".join(re.findall(r'"choices":\[{"index":\d', event))


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_streams_have_one_event_per_token_as_without_drafts(
    path: str, body: Json, open_client: Callable[..., Any]
) -> None:
    answers, nums_steps = [], []
    for max_draft_tokens in (0, 15):
        runner = ScriptedRunner(script="abcabcabcäbcabcabc".encode() * 2)
        client = open_client(runner=runner, max_draft_tokens=max_draft_tokens)
        answer = client.post(path, json=body)
        assert answer.status_code == 200
        # The two choices interleave differently, but each has the same events in the same order.
        answers.append(sorted(re.sub('"id":"[^"]*"', "", answer.text).split("\n\n"), key=choice_of))
        nums_steps.append(len(runner.plans))

    assert answers[1] == answers[0]
    assert nums_steps[1] < nums_steps[0]


def test_tgi_has_an_event_for_each_token(open_client: Callable[..., Any]) -> None:
    client = open_client(runner=ScriptedRunner(script=b"abc" * 10), max_draft_tokens=15)

    answer = client.post("/generate_stream", json={"inputs": "once", "parameters": {"max_new_tokens": 30}})

    assert answer.text.count("data:") == 30
    metrics = client.get("/metrics").text
    (accepted,) = [line for line in metrics.splitlines() if line.startswith("distilgpt2_accepted_draft_tokens_total")]
    assert float(accepted.split()[1]) > 10
