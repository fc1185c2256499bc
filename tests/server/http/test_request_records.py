"""What is told of each request, in the log and in the metrics: how it was answered and, if it ended early, why."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from distilgpt2_api.server.http.request_record import ALL_ABORT_REASONS


def sample(client: Any, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for found in family.samples:
            if found.name == f"distilgpt2_{name}" and found.labels == labels:
                return float(found.value)
    raise AssertionError(f"no {name} {labels}")


def last_entry(client: Any) -> dict[str, Any]:
    """Of the last request that is no scrape."""
    entries = [call.kwargs for call in client.scene.log.calls if call.kwargs["route"] != "/metrics"]
    entry = entries[-1]
    assert isinstance(entry, dict)
    return entry


@pytest.fixture
def interrupted(
    open_client: Callable[..., Any], build_runner: Any, build_call: Any
) -> Callable[[Callable[[Any, Any], Any], dict[str, Any]], Any]:
    """`interrupted(end, body)`: a completion in the middle of which `end(client, call)` happens; the client."""

    def run(end: Callable[[Any, Any], Any], body: dict[str, Any]) -> Any:
        runner = build_runner(is_gated=True)
        client = open_client(runner=runner)
        content = json.dumps({"prompt": "once", **body}).encode()
        headers = [(b"content-type", b"application/json")]
        call = build_call(client.scene.app, "/v1/completions", method="POST", body=content, headers=headers)

        async def play() -> None:
            started = asyncio.Event()
            loop = asyncio.get_running_loop()
            runner.on_run = lambda plan: loop.call_soon_threadsafe(started.set)
            task = asyncio.create_task(call.run())
            runner.gate.release()
            await asyncio.wait_for(started.wait(), 10)
            if body.get("stream"):
                await call.wait_for(lambda sent: len(sent) >= 2)
            await end(client, call)
            runner.open_gate()
            await asyncio.wait_for(task, 10)

        client.runner.run(play())
        return client

    return run


async def hang_up(_client: Any, call: Any) -> None:
    call.gone.set()
    await asyncio.sleep(0)


async def drain(client: Any, _call: Any) -> None:
    await client.scene.engine.drain(0.0)


async def break_down(client: Any, _call: Any) -> None:
    def fail(_plan: Any) -> None:
        raise ZeroDivisionError

    client.scene.runner.on_run = fail


@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize(
    ("end", "reason", "error_code"),
    [(hang_up, "disconnect", None), (drain, "drain", "draining"), (break_down, "error", "engine_failed")],
)
def test_work_that_ends_early_says_why_and_is_counted_once(
    interrupted: Any, end: Any, reason: str, error_code: str | None, is_streamed: bool
) -> None:
    client = interrupted(end, {"stream": is_streamed})
    entry = last_entry(client)
    assert entry["abort_reason"] == reason
    assert entry.get("error_code") == error_code
    assert entry["stream"] is is_streamed
    counts = {known: sample(client, "aborts_total", reason=known) for known in ALL_ABORT_REASONS}
    assert counts == dict.fromkeys(ALL_ABORT_REASONS, 0) | {reason: 1}
    assert sample(client, "refusals_total", code="draining") == 0


def test_a_deadline_is_a_reason(open_client: Callable[..., Any]) -> None:
    client = open_client()
    assert client.complete(prompt="a", timeout_s=1e-9).status_code == 504
    assert last_entry(client)["abort_reason"] == "deadline"
    assert sample(client, "aborts_total", reason="deadline") == 1


def test_a_stream_that_was_cut_tells_what_had_been_drawn(interrupted: Any) -> None:
    """Its tokens cost as much as anybody's."""
    entry = last_entry(interrupted(hang_up, {"stream": True}))
    assert entry["completion_tokens"] >= 1
    assert entry["finish_reason"] is None


def test_refusals_are_counted_by_code_and_are_no_aborts(open_client: Callable[..., Any]) -> None:
    client = open_client()
    client.runner.run(client.scene.engine.drain(0.0))
    assert client.complete(prompt="a").status_code == 503
    assert client.get("/readyz").status_code == 503  # asked, not refused
    entry = next(call.kwargs for call in client.scene.log.calls if call.kwargs["route"] == "/v1/completions")
    assert entry["error_code"] == "draining"
    assert "abort_reason" not in entry
    assert sample(client, "refusals_total", code="draining") == 1
    assert sample(client, "aborts_total", reason="drain") == 0


def test_known_refusals_stand_there_from_the_start(client: Any) -> None:
    for code in ("overloaded", "draining", "not_ready", "engine_failed"):
        assert sample(client, "refusals_total", code=code) == 0


def test_an_error_has_its_code_in_the_log(client: Any) -> None:
    client.complete(prompt="a", max_tokens=100_000)
    assert last_entry(client)["error_code"] == "context_length_exceeded"
    client.complete(prompt="a", temperature=-1)
    assert last_entry(client)["error_code"] == "invalid_request_error"
    client.get("/v1/nothing")
    assert last_entry(client)["error_code"] == "invalid_request_error"


def test_cached_tokens_are_told_once_a_prompt(client: Any) -> None:
    """Of several sequences the first counts: the others find what it has left."""
    prompt = "x" * 40
    client.complete(prompt=prompt, n=2)
    assert last_entry(client)["cached_tokens"] == 0
    client.complete(prompt=[prompt, prompt], n=2)
    assert last_entry(client)["cached_tokens"] == 64
    assert sample(client, "prefix_cache_queried_tokens_total") == 6 * 40
    assert sample(client, "prefix_cache_hit_tokens_total") == 5 * 32


def test_each_token_but_the_first_has_its_gap_in_the_metrics(client: Any) -> None:
    client.complete(prompt="a", n=2, max_tokens=5)
    assert sample(client, "inter_token_latency_seconds_count") == 2 * 4


def test_the_state_is_one_of_those_that_there_are(client: Any) -> None:
    assert sample(client, "engine_state", state="ready") == 1
    client.runner.run(client.scene.engine.drain(0.0))
    assert sample(client, "engine_state", state="ready") == 0
    assert sample(client, "engine_state", state="draining") == 1


def test_a_scrape_is_the_only_request_in_flight(client: Any) -> None:
    assert sample(client, "http_requests_in_flight") == 1
