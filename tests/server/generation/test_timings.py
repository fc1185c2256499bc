"""Timings of requests: in answers, streams, headers, the log line and the metrics, always the same numbers."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from distilgpt2_api.core.outputs import RequestTimings
from distilgpt2_api.observability.request_record import RequestRecord
from distilgpt2_api.server.protocols.tgi.writer import timing_headers
from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate

Json = dict[str, Any]
KEYS = {
    "queue_ms", "cache_n", "prompt_n", "prompt_ms", "prompt_per_token_ms", "prompt_per_second",
    "predicted_n", "predicted_ms", "predicted_per_token_ms", "predicted_per_second",
}  # fmt: skip
CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 6}


def logged(client: Any) -> Json:
    return dict(client.scene.log.calls[-1].kwargs)


def durations(header: str) -> dict[str, float]:
    return {name: float(duration) for name, duration in re.findall(r"(\w+);dur=([0-9.]+)", header)}


def metric(client: Any, name: str) -> float:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return next(sample.value for family in families for sample in family.samples if sample.name == f"distilgpt2_{name}")


def test_an_answer_has_timings_if_it_asks(client: Any) -> None:
    body = client.complete(prompt="once", max_tokens=6, timings=True).json()
    timings = body["timings"]
    assert timings.keys() == KEYS
    assert (timings["cache_n"], timings["prompt_n"], timings["predicted_n"]) == (0, 4, 6)
    assert 4000 / timings["prompt_per_second"] == pytest.approx(timings["prompt_ms"], abs=0.001)
    assert 5000 / timings["predicted_per_second"] == pytest.approx(timings["predicted_ms"], abs=0.001)
    assert timings["predicted_per_token_ms"] == pytest.approx(timings["predicted_ms"] / 5, abs=0.001)
    for asked in (None, False):
        assert "timings" not in client.complete(prompt="once", max_tokens=6, timings=asked).json()


def test_answer_header_log_and_metrics_agree(client: Any) -> None:
    answer = client.complete(prompt="once", max_tokens=6, timings=True)
    timings, log = answer.json()["timings"], logged(client)
    phases = [timings["queue_ms"], timings["prompt_ms"], timings["predicted_ms"]]
    header = answer.headers["server-timing"]
    assert list(durations(header)) == ["queue", "prefill", "decode"]
    assert list(durations(header).values()) == phases
    assert f'desc="{log["tokens_per_s"]} tokens/s"' in header
    assert log["tokens_per_s"] == pytest.approx(timings["predicted_per_second"], abs=0.06)
    assert [log["queue_ms"], log["prefill_ms"], log["decode_ms"]] == pytest.approx(phases, abs=0.06)
    names = ("queue_time", "prefill_time", "decode_time")
    assert [1000 * metric(client, f"{name}_seconds_sum") for name in names] == pytest.approx(phases, abs=0.001)


@pytest.mark.parametrize("has_usage", [True, False])
def test_a_stream_has_timings_in_its_last_chunk(client: Any, has_usage: bool) -> None:
    chunks = client.stream(prompt="once", max_tokens=6, n=2, timings=True, stream_options={"include_usage": has_usage})
    *others, last = chunks
    assert last["choices"] == []
    assert last["timings"]["predicted_n"] == 12
    assert ("usage" in last) is has_usage
    assert last["timings"]["predicted_per_second"] == pytest.approx(logged(client)["tokens_per_s"], abs=0.06)
    assert not any("timings" in chunk for chunk in others)


def test_chat_has_timings_whole_and_streamed(open_client: Any) -> None:
    client = open_client(chat_template=ChatTemplate("{{ messages[0].content }}", origin="test"))
    assert client.post("/v1/chat/completions", json={**CHAT, "timings": True}).json()["timings"]["predicted_n"] == 6
    text = client.post("/v1/chat/completions", json={**CHAT, "timings": True, "stream": True}).text
    last = json.loads(text.split("\n\n")[-3].removeprefix("data: "))
    assert (last["choices"], last["timings"].keys()) == ([], KEYS)


def test_a_score_has_a_prefill_and_no_decode(client: Any) -> None:
    answer = client.post("/v1/score", json={"input": ["ab", "cde"], "timings": True})
    timings = answer.json()["timings"]
    assert (timings["prompt_n"], timings["predicted_n"]) == (7, 0)  # with an end of text before each
    assert (timings["predicted_ms"], timings["predicted_per_second"]) == (0, None)
    assert timings["prompt_ms"] > 0
    assert list(durations(answer.headers["server-timing"])) == ["queue", "prefill"]


def test_tokens_of_the_prefix_cache_are_not_counted_as_computed(client: Any) -> None:
    prompt = "once upon a time there was a king who had a daughter"
    client.complete(prompt=prompt, max_tokens=2)
    timings = client.complete(prompt=prompt, max_tokens=2, timings=True).json()["timings"]
    assert timings["cache_n"] > 0
    assert timings["cache_n"] + timings["prompt_n"] == len(prompt)


def test_a_beam_search_has_timings(client: Any) -> None:
    body = client.complete(prompt="once", max_tokens=4, use_beam_search=True, best_of=3, n=1, timings=True).json()
    assert body["timings"]["predicted_n"] == 4
    assert body["timings"]["predicted_ms"] > 0


def test_tgi_answers_with_its_own_headers(client: Any) -> None:
    for path in ("/", "/generate"):
        headers = client.post(path, json={"inputs": "once", "parameters": {"max_new_tokens": 5}}).headers
        assert (headers["x-prompt-tokens"], headers["x-generated-tokens"]) == ("4", "5")
        times = [int(headers[f"x-{name}"]) for name in ("validation-time", "queue-time", "inference-time")]
        assert int(headers["x-time-per-token"]) <= times[-1]
        assert sum(times) <= int(headers["x-total-time"])
        assert "decode" in headers["server-timing"]


def test_no_time_counts_twice_if_the_engine_begins_before_the_admission_is_noted() -> None:
    timings = RequestTimings(queue_s=0.001, prefill_s=0.002, decode_s=0.003)
    record = RequestRecord(request_id="1", clock=lambda: 10.007, started_s=10.0, admitted_s=10.005, timings=timings)

    headers = {name: int(value) for name, value in timing_headers(record)}

    assert headers[b"x-validation-time"] + headers[b"x-queue-time"] + headers[b"x-inference-time"] <= 7
    assert headers[b"x-inference-time"] == 5


def test_the_workshops_answer_has_the_header(client: Any) -> None:
    assert list(durations(client.get("/Once upon").headers["server-timing"])) == ["queue", "prefill", "decode"]


def test_an_answer_without_engine_work_has_no_header(client: Any) -> None:
    assert "server-timing" not in client.get("/v1/models").headers
