"""Limits of one caller, as clients see them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.core.caller import ApiKey, CallerLimits, digest_of
from distilgpt2_api.server.auth.access import Access
from distilgpt2_api.server.auth.api_keys import KeyRing
from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate

KEY = "0123456789abcdef"
PROMPTS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "a"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
    "/v1/score": {"input": "a"},
}


def test_a_request_over_the_in_flight_limit_is_429(open_client: Callable[..., Any], build_runner: Any) -> None:
    """In OpenAI's shape and in TGI's, with `Retry-After`. The first request is not affected."""
    runner = build_runner(is_gated=True)
    client = open_client(runner=runner, access=Access(address_limits=CallerLimits(max_requests=1)))

    async def play() -> tuple[Any, Any, Any]:
        running = asyncio.create_task(client._http.post("/v1/completions", json={"prompt": "a", "max_tokens": 3}))
        while not client.scene.engine.num_requests:  # noqa: ASYNC110 - the engine has no event for it
            await asyncio.sleep(0)
        refused = await client._http.post("/v1/completions", json={"prompt": "a"})
        refused_by_tgi = await client._http.post("/generate", json={"inputs": "a"})
        runner.open_gate()
        return refused, refused_by_tgi, await running

    refused, refused_by_tgi, running = client.runner.run(play())
    assert running.status_code == 200
    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert "1 requests in flight and ask for 1 more; your limit is 1" in refused.json()["error"]["message"]
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["x-should-retry"] == "true"
    assert (refused_by_tgi.status_code, refused_by_tgi.json()["error_type"]) == (429, "overloaded")


def test_more_prompts_than_the_in_flight_limit_are_400(open_client: Callable[..., Any]) -> None:
    """With 429 the client would retry forever."""
    client = open_client(access=Access(address_limits=CallerLimits(max_requests=2)))
    assert client.complete(prompt=["a", "b"], max_tokens=1).status_code == 200
    answer = client.complete(prompt=["a", "b", "c"], max_tokens=1)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == (
        "the request has 3 prompts; you may have at most 2 in flight: send fewer at once"
    )


def test_a_beam_search_of_more_prompts_than_the_in_flight_limit_is_400(open_client: Callable[..., Any]) -> None:
    """A prompt counts as one request, regardless of its beams."""
    client = open_client(access=Access(address_limits=CallerLimits(max_requests=2)))
    search = {"use_beam_search": True, "best_of": 4, "max_tokens": 2}
    assert client.complete(prompt=["a", "b"], **search).status_code == 200
    answer = client.complete(prompt=["a", "b", "c"], **search)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == (
        "the request has 3 prompts; you may have at most 2 in flight: send fewer at once"
    )
    assert "retry-after" not in answer.headers


@pytest.mark.reported("one key starves all others with the priority -2147483648")
@pytest.mark.parametrize("path", PROMPTS)
@pytest.mark.parametrize(("min_priority", "lowest"), [(None, 0), (0, 0), (-5, -5)])
def test_a_caller_can_only_lower_its_priority_unless_its_key_allows_more(
    open_client: Callable[..., Any], path: str, min_priority: int | None, lowest: int
) -> None:
    key = ApiKey(name="alice", digest=digest_of(KEY.encode()), limits=CallerLimits(min_priority=min_priority))
    template = ChatTemplate("{{ messages[0].content }}", origin="test")
    client = open_client(access=Access(keys=KeyRing((key,))), chat_template=template)
    prompt = PROMPTS[path]
    for priority, status in ((lowest, 200), (2**31 - 1, 200), (lowest - 1, 400), (-(2**31), 400)):
        answer = client.post(path, json={**prompt, "priority": priority}, headers={"x-api-key": KEY})
        assert answer.status_code == status, answer.text
        if status == 400:
            error = answer.json()["error"]
            assert (error["param"], error["type"]) == ("priority", "invalid_request_error")
            assert f"priority {priority} is below your minimum of {lowest}" in error["message"]


@pytest.mark.parametrize("options", [{"stream": True}, {"use_beam_search": True, "best_of": 2}, {"prompt": ["a", "b"]}])
def test_a_priority_below_the_callers_minimum_is_400_in_every_form(
    open_client: Callable[..., Any], options: dict[str, Any]
) -> None:
    """Also without keys: an address is a caller."""
    answer = open_client().complete(**{"prompt": "a", "priority": -1, **options})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "priority")


def test_the_token_rate_is_limited_and_unused_tokens_are_returned(open_client: Callable[..., Any]) -> None:
    """The fake model ends its text after 11 tokens, so the rest of the 200 reserved tokens is returned."""
    limits = CallerLimits(tokens_per_s=0.001, burst_tokens=230)
    client = open_client(access=Access(address_limits=limits))
    used = [client.complete(prompt="a", max_tokens=200).json()["usage"]["total_tokens"] for _ in range(2)]
    assert sum(used) < 40
    refused = client.complete(prompt="a", max_tokens=225)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert int(refused.headers["retry-after"]) == 120
    assert client.complete(prompt="a", max_tokens=100).status_code == 200
