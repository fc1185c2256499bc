"""The record of each request in the log and the metrics: its response, and why it was aborted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from distilgpt2_api.observability.request_record import ALL_ABORT_REASONS


def sample(client: Any, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for found in family.samples:
            if found.name == f"distilgpt2_{name}" and found.labels == labels:
                return float(found.value)
    raise AssertionError(f"no {name} {labels}")


def last_entry(client: Any) -> dict[str, Any]:
    """The log entry of the last request other than `/metrics`."""
    entries = [call.kwargs for call in client.scene.log.calls if call.kwargs["route"] != "/metrics"]
    entry = entries[-1]
    assert isinstance(entry, dict)
    return entry


@pytest.fixture
def interrupted(
    open_client: Callable[..., Any], build_runner: Any, build_call: Any
) -> Callable[[Callable[[Any, Any], Any], dict[str, Any]], Any]:
    """`interrupted(end, body)` calls `end(client, call)` during a completion, and returns the client."""

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
def test_an_aborted_request_has_its_reason_and_is_counted_once(
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


def test_a_deadline_is_an_abort_reason(open_client: Callable[..., Any]) -> None:
    client = open_client()
    assert client.complete(prompt="a", timeout_s=1e-9).status_code == 504
    assert last_entry(client)["abort_reason"] == "deadline"
    assert sample(client, "aborts_total", reason="deadline") == 1


def test_an_aborted_stream_logs_its_tokens(interrupted: Any) -> None:
    entry = last_entry(interrupted(hang_up, {"stream": True}))
    assert entry["completion_tokens"] >= 1
    assert entry["finish_reason"] is None


def test_refusals_are_counted_by_code_and_not_as_aborts(open_client: Callable[..., Any]) -> None:
    client = open_client()
    client.runner.run(client.scene.engine.drain(0.0))
    assert client.complete(prompt="a").status_code == 503
    assert client.get("/readyz").status_code == 503  # a probe is not refused
    entry = next(call.kwargs for call in client.scene.log.calls if call.kwargs["route"] == "/v1/completions")
    assert entry["error_code"] == "draining"
    assert "abort_reason" not in entry
    assert sample(client, "refusals_total", code="draining") == 1
    assert sample(client, "aborts_total", reason="drain") == 0


def test_refusal_counters_start_at_zero(client: Any) -> None:
    for code in ("overloaded", "draining", "not_ready", "engine_failed"):
        assert sample(client, "refusals_total", code=code) == 0


def test_the_log_has_the_code_of_an_error(client: Any) -> None:
    client.complete(prompt="a", max_tokens=100_000)
    assert last_entry(client)["error_code"] == "context_length_exceeded"
    client.complete(prompt="a", temperature=-1)
    assert last_entry(client)["error_code"] == "invalid_request_error"
    client.get("/v1/nothing")
    assert last_entry(client)["error_code"] == "invalid_request_error"


def test_cached_tokens_are_counted_once_per_prompt(client: Any) -> None:
    """Only the first of several sequences counts: the others share its blocks."""
    prompt = "x" * 40
    client.complete(prompt=prompt, n=2)
    assert last_entry(client)["cached_tokens"] == 0
    client.complete(prompt=[prompt, prompt], n=2)
    assert last_entry(client)["cached_tokens"] == 64
    assert sample(client, "prefix_cache_queried_tokens_total") == 6 * 40
    assert sample(client, "prefix_cache_hit_tokens_total") == 5 * 32


def test_each_token_but_the_first_has_an_inter_token_latency(client: Any) -> None:
    client.complete(prompt="a", n=2, max_tokens=5)
    assert sample(client, "inter_token_latency_seconds_count") == 2 * 4


def test_exactly_the_current_engine_state_is_1(client: Any) -> None:
    assert sample(client, "engine_state", state="ready") == 1
    client.runner.run(client.scene.engine.drain(0.0))
    assert sample(client, "engine_state", state="ready") == 0
    assert sample(client, "engine_state", state="draining") == 1


def test_a_scrape_is_the_only_request_in_flight(client: Any) -> None:
    assert sample(client, "http_requests_in_flight") == 1
