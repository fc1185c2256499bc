"""`/v1/usage`, budgets and metrics by key: as clients and operators see them."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from distilgpt2_api.core.caller import ApiKey, CallerLimits, digest_of
from distilgpt2_api.server.auth.access import Access
from distilgpt2_api.server.auth.api_keys import KeyRing
from distilgpt2_api.settings.key_file_edits import add_to_key_file, describe_key, remove_from_key_file
from distilgpt2_api.usage.databases import DATABASE_NAME, usage_store_at
from distilgpt2_api.usage.key_usage import KeyUsage
from distilgpt2_api.usage.ledger import UsageLedger

Json = dict[str, Any]
NOON_S = datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()
MIDNIGHT_S = datetime(2026, 11, 30, tzinfo=UTC).timestamp()
KEYS = {name: f"dg2-{name}-0123456789" for name in ("alice", "bob", "olga")}


def as_key(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[name]}"}


class KeyClient:
    """A client whose requests have a key."""

    def __init__(self, client: Any, ring: KeyRing) -> None:
        self.client = client
        self.ring = ring

    def complete(self, name: str = "alice", **body: Any) -> Any:
        return self.client.post("/v1/completions", json=body, headers=as_key(name))

    def usage(self, name: str = "alice", **query: Any) -> Any:
        return self.client.get("/v1/usage", params=query, headers=as_key(name))

    def report(self, name: str = "alice", **query: Any) -> Json:
        answer = self.usage(name, **query)
        assert answer.status_code == 200, answer.text
        [report] = answer.json()["data"]
        return dict(report)


@pytest.fixture
def open_keys(open_client: Callable[..., Any], tmp_path: Path) -> Callable[..., KeyClient]:
    def opened(*, limits: CallerLimits | None = None, file: Path | None = None, **options: Any) -> KeyClient:
        fixed = [ApiKey(name=name, digest=digest_of(key.encode())) for name, key in KEYS.items()]
        ring = KeyRing(() if file else tuple(fixed), file=file, default_limits=limits or CallerLimits())
        usage = KeyUsage(ring, UsageLedger(lambda: NOON_S), usage_store_at(str(tmp_path)))
        usage.load()
        access = Access(keys=ring, operators=frozenset({"olga"}))
        return KeyClient(open_client(access=access, usage=usage, **options), ring)

    return opened


def counts(report: Json) -> list[int]:
    return [report[name] for name in ("requests", "prompt_tokens", "completion_tokens", "total_tokens", "refusals")]


def test_a_key_reads_what_its_answers_said(open_keys: Callable[..., KeyClient]) -> None:
    client = open_keys()
    whole = client.complete(prompt=["ab", "c"], n=2, max_tokens=3).json()["usage"]
    stream = client.complete(prompt="once", max_tokens=5, stream=True)
    assert stream.status_code == 200
    client.client.post("/generate", json={"inputs": "x", "parameters": {"max_new_tokens": 2}}, headers=as_key("alice"))
    client.client.get("/v1/models", headers=as_key("alice"))
    report = client.report()
    num_prompt, num_completion = whole["prompt_tokens"] + 4 + 1, whole["completion_tokens"] + 5 + 2
    assert counts(report) == [3, num_prompt, num_completion, num_prompt + num_completion, 0]
    assert report["last_used_at"] == NOON_S
    [day] = report["days"]
    assert day == {"date": "2026-11-29", **{name: report[name] for name in day if name != "date"}}
    assert report["budgets"] == []


def test_wrong_requests_cost_nothing(open_keys: Callable[..., KeyClient]) -> None:
    client = open_keys()
    assert client.complete(prompt="a", max_tokens=-1).status_code == 400
    assert client.complete(prompt="a" * 300, max_tokens=10).status_code == 400
    report = client.report()
    assert (counts(report), report["last_used_at"], report["days"]) == ([0] * 5, None, [])


def test_a_request_that_misses_its_deadline_costs_its_prompt(open_keys: Callable[..., KeyClient]) -> None:
    client = open_keys()
    answer = client.complete(prompt="once", max_tokens=200, stream=True, timeout_s=1e-9)
    assert answer.status_code == 504
    report = client.report()
    assert (report["requests"], report["prompt_tokens"]) == (1, 4)


def test_only_an_operator_reads_the_usage_of_others(open_keys: Callable[..., KeyClient]) -> None:
    client = open_keys()
    client.complete("alice", prompt="ab", max_tokens=1)
    client.complete("bob", prompt="abc", max_tokens=1)
    assert [report["key"] for report in client.usage("alice").json()["data"]] == ["alice"]
    reports = client.usage("olga").json()["data"]
    assert [(report["key"], report["prompt_tokens"]) for report in reports] == [("alice", 2), ("bob", 3), ("olga", 0)]
    assert client.report("olga", key="bob")["prompt_tokens"] == 3
    for name in ("bob", "carol"):
        refused = client.usage("alice", key=name)
        assert (refused.status_code, refused.json()["error"]["param"]) == (404, "key")
        assert refused.json()["error"]["message"] == f"there is no key {name!r} whose usage your key may read"
    assert client.usage("olga", key="carol").status_code == 404
    assert client.client.get("/v1/usage").status_code == 401


def test_days_can_be_chosen(open_keys: Callable[..., KeyClient]) -> None:
    client = open_keys()
    client.complete(prompt="ab", max_tokens=1)
    body = client.usage().json()
    assert (body["object"], body["start_date"], body["end_date"]) == ("list", "2026-11-01", "2026-11-29")
    assert client.report(start_date="2026-11-29")["requests"] == 1
    assert client.report(start_date="2026-11-01", end_date="2026-11-28")["requests"] == 0
    assert client.report(start_date="2027-01-01")["requests"] == 0


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"start_date": "2026-11-30", "end_date": "2026-11-29"}, "end_date"),
        ({"end_date": "2026-10-29"}, "end_date"),
        ({"start_date": "yesterday"}, "start_date"),
        ({"key": ""}, "key"),
        ({"day": "2026-11-30"}, "day"),
    ],
)
def test_a_wrong_query_names_its_parameter(open_keys: Callable[..., KeyClient], query: Json, param: str) -> None:
    answer = open_keys().usage(**query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_without_keys_there_is_no_usage(client: Any) -> None:
    answer = client.get("/v1/usage")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_enabled")


def test_a_store_that_fails_is_503_and_requests_go_on(open_keys: Callable[..., KeyClient], tmp_path: Path) -> None:
    client = open_keys()
    with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as other, other:
        other.execute(
            "BEGIN IMMEDIATE"
        )  # or the service, which writes in the background, creates its tables in between
        other.execute("ALTER TABLE distilgpt2_usage RENAME TO distilgpt2_elsewhere")
        other.execute("ALTER TABLE distilgpt2_usage_version RENAME TO distilgpt2_version_elsewhere")
        other.execute("CREATE TABLE distilgpt2_usage_version (other INTEGER)")
    assert client.complete(prompt="ab", max_tokens=1).status_code == 200
    answer = client.usage()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")


# ---- budgets


def test_a_used_up_budget_is_429_until_the_next_day(open_keys: Callable[..., KeyClient]) -> None:
    client = open_keys(limits=CallerLimits(tokens_per_day=10, tokens_per_month=1000))
    assert client.complete(prompt="abcd", max_tokens=4).status_code == 200
    refused = client.complete(prompt="abcd", max_tokens=4)
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("insufficient_quota", "insufficient_quota", None)
    assert error["message"] == (
        "you have used or reserved 8 tokens of your budget of 10 tokens a day, and this request needs up to 8; the next"
        " day begins at 2026-11-30T00:00:00Z"
    )
    assert (refused.headers["retry-after"], refused.headers["x-should-retry"]) == ("43200", "false")
    assert client.complete(prompt="ab", max_tokens=0, echo=True).status_code == 200
    report = client.report()
    assert counts(report) == [2, 6, 4, 10, 1]
    assert report["budgets"] == [
        {"period": "day", "max_tokens": 10, "used_tokens": 10, "remaining_tokens": 0, "resets_at": MIDNIGHT_S},
        {
            "period": "month",
            "max_tokens": 1000,
            "used_tokens": 10,
            "remaining_tokens": 990,
            "resets_at": datetime(2026, 12, 1, tzinfo=UTC).timestamp(),
        },
    ]
    assert client.complete("bob", prompt="abcd", max_tokens=4).status_code == 200  # each key has its own


def test_a_budget_refusal_has_the_protocols_shape(open_keys: Callable[..., KeyClient]) -> None:
    client = open_keys(limits=CallerLimits(tokens_per_day=5))
    client.complete(prompt="abcd", max_tokens=1)
    bodies: dict[str, Json] = {
        "/generate": {"inputs": "a", "parameters": {"max_new_tokens": 1}},
        "/api/generate": {"model": "tiny", "prompt": "a", "options": {"num_predict": 1}},
        "/completion": {"prompt": "a", "n_predict": 1, "stream": True},
    }
    answers = {path: client.client.post(path, json=body, headers=as_key("alice")) for path, body in bodies.items()}
    assert {(answer.status_code, answer.headers["retry-after"]) for answer in answers.values()} == {(429, "43200")}
    assert answers["/generate"].json()["error_type"] == "overloaded"
    assert "the next day begins at 2026-11-30" in answers["/api/generate"].json()["error"]
    assert "the next day begins at 2026-11-30" in answers["/completion"].json()["error"]["message"]
    streamed = client.complete(prompt="a", max_tokens=1, stream=True)
    assert (streamed.status_code, streamed.json()["error"]["code"]) == (429, "insufficient_quota")


def test_more_tokens_than_the_budget_ever_has_are_400(open_keys: Callable[..., KeyClient]) -> None:
    answer = open_keys(limits=CallerLimits(tokens_per_day=5)).complete(prompt="ab", n=2, max_tokens=2)
    assert answer.status_code == 400
    assert "needs up to 6 prompt and completion tokens; your budget is 5 tokens a day" in answer.text


def test_requests_in_flight_reserve_their_tokens(open_keys: Callable[..., KeyClient], build_runner: Any) -> None:
    runner = build_runner(is_gated=True)
    client = open_keys(limits=CallerLimits(tokens_per_day=20), runner=runner)
    http = client.client._http

    async def play() -> tuple[Any, Any]:
        body = {"prompt": "abcd", "max_tokens": 10}
        running = asyncio.create_task(http.post("/v1/completions", json=body, headers=as_key("alice")))
        while not client.client.scene.engine.num_requests:  # noqa: ASYNC110 - the engine has no event for it
            await asyncio.sleep(0)
        refused = await http.post("/v1/completions", json=body, headers=as_key("alice"))
        runner.open_gate()
        return await running, refused

    running, refused = client.client.runner.run(play())
    assert (running.status_code, refused.status_code) == (200, 429)
    assert client.report()["budgets"][0]["used_tokens"] == running.json()["usage"]["total_tokens"]


def test_a_beam_search_counts_like_its_answer(open_keys: Callable[..., KeyClient]) -> None:
    client = open_keys(limits=CallerLimits(tokens_per_day=100))
    answer = client.complete(prompt="once", max_tokens=4, use_beam_search=True, best_of=3, n=2).json()
    assert client.report()["budgets"][0]["used_tokens"] == answer["usage"]["total_tokens"]


# ---- keys that change, metrics


def test_a_reload_of_the_key_file_keeps_usage_and_brings_new_budgets(
    open_keys: Callable[..., KeyClient], tmp_path: Path
) -> None:
    file = tmp_path / "keys.toml"
    for name in ("alice", "bob"):
        add_to_key_file(file, describe_key(name, KEYS[name], CallerLimits()))
    client = open_keys(file=file)
    client.complete(prompt="abcd", max_tokens=1)
    remove_from_key_file(file, "alice")
    add_to_key_file(file, describe_key("alice", KEYS["alice"], CallerLimits(tokens_per_day=6)))
    client.ring.refresh()
    assert client.report()["total_tokens"] == 5
    assert client.complete(prompt="a", max_tokens=1).status_code == 429


def test_metrics_count_by_key(open_keys: Callable[..., KeyClient], tmp_path: Path) -> None:
    client = open_keys(limits=CallerLimits(tokens_per_day=5))
    client.complete(prompt="abcd", max_tokens=1)
    client.complete(prompt="abcd", max_tokens=1)
    page = client.client.get("/metrics", headers=as_key("bob")).text
    samples = {
        (sample.name.removeprefix("distilgpt2_"), sample.labels.get("key")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    names = ("requests", "prompt_tokens", "completion_tokens", "refusals")
    assert [samples[f"key_{name}_total", "alice"] for name in names] == [1, 4, 1, 1]
    assert [samples[f"key_{name}_total", "bob"] for name in names] == [0, 0, 0, 0]
    assert samples["usage_store_up", None] == 1


def test_what_a_service_counts_is_stored(open_keys: Callable[..., KeyClient], tmp_path: Path) -> None:
    client = open_keys()
    client.complete(prompt="abcd", max_tokens=1)
    usage = client.client.scene.app.state.service.usage
    client.client.runner.run(usage.close())
    with usage_store_at(str(tmp_path)).session() as session:
        [row] = session.read(date.min, date.max)
    assert (row.key, row.day, row.usage.num_tokens) == ("alice", date(2026, 11, 29), 5)


# ---- batches


def run_batch(client: KeyClient, num_lines: int) -> Json:
    """Returns the ended batch."""
    line = {"method": "POST", "url": "/v1/completions", "body": {"prompt": "abcd", "max_tokens": 2}}
    content = "\n".join(json.dumps({"custom_id": f"{number}", **line}) for number in range(num_lines))
    http, headers = client.client._http, as_key("alice")

    async def play() -> Any:
        files = {"file": ("name", content.encode())}
        file = await http.post("/v1/files", files=files, data={"purpose": "batch"}, headers=headers)
        body = {"input_file_id": file.json()["id"], "endpoint": "/v1/completions", "completion_window": "24h"}
        batch = (await http.post("/v1/batches", json=body, headers=headers)).json()
        async with asyncio.timeout(20):
            while batch["status"] not in {"completed", "failed"}:
                await asyncio.sleep(0.01)
                batch = (await http.get(f"/v1/batches/{batch['id']}", headers=headers)).json()
        return batch

    return dict(client.client.runner.run(play()))


def test_lines_of_a_batch_count_for_its_key(open_keys: Callable[..., KeyClient], open_batch_service: Any) -> None:
    client = open_keys(open_batch_service=open_batch_service)
    assert run_batch(client, 3)["request_counts"]["completed"] == 3
    assert counts(client.report()) == [3, 12, 6, 18, 0]


def test_lines_beyond_the_budget_end_with_an_error(
    open_keys: Callable[..., KeyClient], open_batch_service: Any
) -> None:
    """They do not wait for the next day: they would keep others' lines waiting, too."""
    client = open_keys(open_batch_service=open_batch_service, limits=CallerLimits(tokens_per_day=13))
    batch = run_batch(client, 3)
    assert batch["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
    errors = client.client.get(f"/v1/files/{batch['error_file_id']}/content", headers=as_key("alice")).text
    response = json.loads(errors)["response"]
    assert (response["status_code"], response["body"]["error"]["code"]) == (429, "insufficient_quota")
