"""`POST /v1/score`: scores, answers and refusals."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest

Json = dict[str, Any]


def score(client: Any, value: object, **options: object) -> Json:
    answer = client.post("/v1/score", json={"input": value, **options})
    assert answer.status_code == 200, answer.text
    body: Json = answer.json()
    return body


def scored_ids(client: Any, value: object) -> list[list[int]]:
    return [item["token_ids"] for item in score(client, value, token_logprobs=True)["data"]]


def test_an_answer_has_every_field(client: Any) -> None:
    """The first token is scored after the end-of-text token, which is not counted in bytes or tokens."""
    logprob = -(97 + 98) / 100
    assert score(client, "ab") == {
        "object": "list",
        "data": [
            {
                "object": "score",
                "index": 0,
                "logprob": pytest.approx(logprob),
                "num_tokens": 2,
                "num_bytes": 2,
                "perplexity": pytest.approx(math.exp(-logprob / 2)),
                "bits_per_byte": pytest.approx(-logprob / math.log(2) / 2),
                "is_greedy": False,
            }
        ],
        "model": "organisation/tiny",
        "usage": {"prompt_tokens": 3, "total_tokens": 3, "prompt_tokens_details": {"cached_tokens": 0}},
    }


def test_values_of_each_token_on_request(client: Any) -> None:
    [item] = score(client, "né", token_logprobs=True)["data"]
    assert item["tokens"] == ["n", "bytes:\\xc3", "bytes:\\xa9"]
    assert item["token_ids"] == [110, 195, 169]
    assert item["token_logprobs"] == [-1.1, -1.95, -1.69]
    assert (item["num_tokens"], item["num_bytes"]) == (3, 3)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ab", ["ab"]),
        (["ab", "c"], ["ab", "c"]),
        ([97, 98], ["ab"]),
        ([[97, 98], [99]], ["ab", "c"]),
        ({"context": "ab", "continuation": "cd"}, ["cd"]),
        ({"context": "", "continuation": "cd"}, ["cd"]),
        ({"context": [97], "continuation": [98, 99]}, ["bc"]),
        ({"context": [], "continuation": [98, 99]}, ["bc"]),
        ([{"context": "ab", "continuation": "cd"}, "ef", [103]], ["cd", "ef", "g"]),
        ("a<|endoftext|>", [[97, 256]]),
        ("<|endoftext|>", [[256]]),
    ],
)
def test_every_form_of_input(client: Any, value: object, expected: list[Any]) -> None:
    assert scored_ids(client, value) == [list(ids.encode()) if isinstance(ids, str) else ids for ids in expected]


def test_white_space_at_the_end_of_a_context_is_scored(client: Any) -> None:
    """As lm-evaluation-harness splits pairs, so that the scores are the same."""
    pairs = [{"context": "ab \n", "continuation": "c"}, {"context": "  ", "continuation": "c"}]
    assert scored_ids(client, pairs) == [list(b" \nc"), list(b"  c")]


def test_each_token_as_likely_as_the_likeliest_is_greedy(client: Any) -> None:
    """The script's likeliest token is always 0."""
    data = score(client, [[0, 0], [0, 1], {"context": [1], "continuation": [0]}])["data"]
    assert [item["is_greedy"] for item in data] == [True, False, True]
    assert data[0]["perplexity"] == 1


def test_many_texts_are_computed_together(open_client: Callable[..., Any], build_runner: Callable[..., Any]) -> None:
    """In one step, if they arrive while another step runs."""
    has_begun, have_arrived = threading.Event(), threading.Event()

    def hold_the_first_step(_plan: Any) -> None:
        has_begun.set()
        assert have_arrived.wait(20)

    runner = build_runner(on_run=hold_the_first_step)
    client = open_client(runner=runner)

    async def play() -> None:
        first = asyncio.create_task(client._http.post("/v1/score", json={"input": "x"}))
        while not has_begun.is_set():  # noqa: ASYNC110 - the engine has no event for it
            await asyncio.sleep(0)
        values = ["abc", "de", "f", {"context": "gh", "continuation": "i"}]
        others = asyncio.create_task(client._http.post("/v1/score", json={"input": values}))
        while client.scene.engine.num_requests < 1 + len(values):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        have_arrived.set()
        assert [(await one).status_code for one in (first, others)] == [200, 200]

    client.runner.run(play())
    assert max(len(plan.rows) for plan in runner.plans) == 4
    assert not any(row.is_sampling for plan in runner.plans for row in plan.rows)


def test_a_context_costs_no_logits_and_is_computed_once(client: Any) -> None:
    pair = {"context": "c" * 70, "continuation": "dd"}
    score(client, pair)
    num_plans = len(client.scene.runner.plans)
    assert score(client, pair)["usage"]["prompt_tokens_details"] == {"cached_tokens": 64}
    rows = [row for plan in client.scene.runner.plans[num_plans:] for row in plan.rows]
    assert [(row.num_new_tokens, row.num_prompt_logprobs) for row in rows] == [(5, None), (3, 1)]


def test_log_and_metrics_have_the_request(client: Any) -> None:
    score(client, ["ab", "c"], user="alice")
    fields = client.scene.log.calls[-1].kwargs
    assert (fields["prompt_tokens"], fields["completion_tokens"]) == (5, 0)
    assert fields["finish_reason"] == "length"
    assert "alice" not in str(fields)
    assert len(fields["user_hash"]) == 16


def test_a_text_may_fill_the_context_but_not_more(client: Any) -> None:
    """The end-of-text token before it counts. The error names the item."""
    [item] = score(client, "a" * 255)["data"]
    assert item["num_tokens"] == 255
    for value, param in (
        ("a" * 256, "input"),
        (["a", "a" * 256], "input.1"),
        (["a", "é" * 3000], "input.1"),
        ([{"context": "a" * 200, "continuation": "b" * 57}], "input.0.continuation"),
        ({"context": [1] * 200, "continuation": [1] * 57}, "input.continuation"),
    ):
        error = client.post("/v1/score", json={"input": value}).json()["error"]
        assert (error["code"], error["param"]) == ("context_length_exceeded", param)
        assert param in error["message"]


@pytest.mark.parametrize(
    ("value", "param"),
    [
        (None, "input"),
        (5, "input"),
        (True, "input"),
        ("", "input"),
        ([], "input"),
        ([[]], "input.0"),
        ([""], "input.0"),
        (["a", None], "input.1"),
        (["a", 1], "input.1"),
        ([1, True], "input.0"),
        ([1.5], "input.0"),
        ([-1], "input"),
        ([257], "input"),
        ([[1], [10**12]], "input.1"),
        ([[1, "a"]], "input.0"),
        ({}, "input.context"),
        ([{"context": "a"}], "input.0.continuation"),
        ([{"continuation": "a"}], "input.0.context"),
        ([{"context": "a", "continuation": ""}], "input.0.continuation"),
        ([{"context": [1], "continuation": []}], "input.0.continuation"),
        ([{"context": [300], "continuation": [1]}], "input.0.context"),
        ([{"context": "a", "continuation": [1]}], "input.0"),
        ([{"context": None, "continuation": "a"}], "input.0"),
        ([{"context": "a", "continuation": "b", "x": 1}], "input.0.x"),
        (["a"] * 9, "input"),
    ],
)
def test_invalid_input_is_refused_by_name(client: Any, value: object, param: str) -> None:
    answer = client.post("/v1/score", json={"input": value})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "input"),
        ({"input": "a", "text_1": "a"}, 400, "text_1"),
        ({"input": "a", "token_logprobs": 1}, 400, "token_logprobs"),
        ({"input": "a", "timeout_s": 0}, 400, "timeout_s"),
        ({"input": "a", "priority": "high"}, 400, "priority"),
        ({"input": "a", "model": "other"}, 404, "model"),
    ],
)
def test_other_parameters_are_checked(client: Any, body: Json, status: int, param: str) -> None:
    answer = client.post("/v1/score", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


def test_every_option_has_its_effect(client: Any) -> None:
    score(client, "a", model="tiny", token_logprobs=None, timeout_s=5, priority=1, user="me")


def test_too_many_items_are_refused_as_a_whole(open_client: Callable[..., Any]) -> None:
    client = open_client(max_waiting_requests=2)
    answer = client.post("/v1/score", json={"input": ["a", "b", "c"]})
    assert (answer.status_code, answer.headers.get("retry-after")) == (400, None)
    assert "the queue holds 2 prompts" in answer.json()["error"]["message"]
    score(client, ["a", "b"])


def test_a_missed_deadline_fails(open_client: Callable[..., Any], build_runner: Callable[..., Any]) -> None:
    runner = build_runner(is_gated=True)
    client = open_client(runner=runner)

    async def play() -> Any:
        body = {"input": ["a", "b"], "timeout_s": 1e-9}
        asking = asyncio.create_task(client._http.post("/v1/score", json=body))
        while not client.scene.engine.num_requests:  # noqa: ASYNC110 - the engine has no event for it
            await asyncio.sleep(0)
        runner.open_gate()
        return await asking

    answer = client.runner.run(play())
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")


def test_a_hang_up_frees_everything(
    open_client: Callable[..., Any], build_runner: Callable[..., Any], build_call: Any
) -> None:
    client = open_client(runner=build_runner(is_gated=True))
    engine = client.scene.engine
    body = json.dumps({"input": ["a" * 100, "b"]}).encode()
    call = build_call(client.scene.app, "/v1/score", "POST", body, headers=[(b"content-type", b"application/json")])

    async def hang_up() -> None:
        answering = asyncio.create_task(call.run())
        while engine.num_requests < 2:  # noqa: ASYNC110 - the engine has no event for it
            await asyncio.sleep(0)
        call.gone.set()
        await answering

    client.runner.run(hang_up())
    assert engine.num_requests == 0
    assert call.sent == []


def test_nan_logits_are_an_error(open_client: Callable[..., Any], build_runner: Callable[..., Any]) -> None:
    """JSON has no NaN, and null is not a score."""
    runner = build_runner()
    run = runner.run

    def broken(plan: Any) -> Any:
        result = run(plan)
        for row in result.rows:
            for token in row.prompt_logprobs:
                token.logprob = math.nan
        return result

    runner.run = broken
    answer = open_client(runner=runner).post("/v1/score", json={"input": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "generation_failed")


def test_impossible_tokens_have_finite_scores(
    open_client: Callable[..., Any], build_runner: Callable[..., Any]
) -> None:
    """JSON has no infinity either."""
    runner = build_runner()
    run = runner.run

    def harsh(plan: Any) -> Any:
        result = run(plan)
        for row in result.rows:
            for token in row.prompt_logprobs:
                token.logprob = -math.inf
        return result

    runner.run = harsh
    [item] = score(open_client(runner=runner), "ab", token_logprobs=True)["data"]
    assert item["token_logprobs"] == [-9999, -9999]
    assert item["logprob"] == -19998
    assert math.isfinite(item["perplexity"])
    assert not item["is_greedy"]
