"""Several replicas behave like one process."""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.ray.conftest import eventually
from tests.ray.load import ask

from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.scale_out.ray_serve import app

LONG = "once upon a time there was a king who had three sons, and " * 20


@pytest.fixture(scope="module")
def two(cluster: Any, settings: Any) -> Any:
    """Two replicas on two nodes."""
    cluster.deploy(replicas=2, **settings)
    eventually(lambda: len(cluster.replicas()) == 2, "both replicas answer")
    return cluster


def test_every_replica_is_on_the_metrics_page(two: Any) -> None:
    assert len(two.replicas()) == 2
    assert two.metric("distilgpt2_engine_state", state="ready") == 2


def test_a_replica_computes_on_its_assigned_cores(two: Any) -> None:
    """One core each, independent of the machine and of `OMP_NUM_THREADS`."""
    logs = Path(two.cluster.head_node.get_logs_dir_path()).glob("worker-*.err")
    lines = [line for log in logs for line in log.read_text().splitlines() if '"event": "serving"' in line]

    assert len(lines) >= 2
    assert all('"threads": 1,' in line for line in lines)


def test_as_many_requests_run_concurrently_as_the_engines_allow(two: Any) -> None:
    """Ray's default is five for each replica."""
    with ThreadPoolExecutor(24) as pool:
        work = [pool.submit(ask, two.url, is_stream=True, num_tokens=400) for _ in range(24)]
        eventually(lambda: two.running() == 24, "all of them run")
        assert {task.result().kind for task in work} == {"whole"}


def test_a_client_that_disconnects_ends_its_request(two: Any) -> None:
    with two.stream(max_tokens=16000) as response:
        pieces = response.iter_bytes()  # Kept alive: httpx closes the response with it.
        next(pieces)
        eventually(lambda: two.running() == 1, "it runs")
    eventually(lambda: two.running() == 0, "nothing runs on")


def test_tokens_are_streamed(two: Any) -> None:
    """They don't all arrive at the end."""
    began_s = time.monotonic()
    with two.stream(max_tokens=2000) as response:
        times_s = [time.monotonic() - began_s for _ in response.iter_bytes()]
    assert len(times_s) > 20
    assert times_s[0] < times_s[-1] / 2


def test_a_prompt_prefix_is_computed_once(two: Any) -> None:
    """The same replica gets the prompt again although the other one is idle, too."""
    for number in range(8):
        usage = two.complete(prompt=f"{LONG}{number}", max_tokens=1).json()["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] > 0 or number == 0


def test_prompts_with_different_prefixes_are_spread(two: Any) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: two.complete(prompt=f"{number} {LONG}", max_tokens=64), range(64)))
    replicas = {replica for replica in two.replicas() if two.metric("distilgpt2_prompt_tokens_total", replica=replica)}
    assert len(replicas) == 2


def test_a_response_has_one_request_id(two: Any) -> None:
    answer = two.get("/version", headers={"x-request-id": "mine"})
    assert answer.headers.get_list("x-request-id") == ["mine"]


def test_the_queue_is_limited(cluster: Any, settings: Any) -> None:
    """One request runs, one waits, the third is refused; probes and metrics are answered all the time."""
    cluster.replace(**settings, max_num_sequences=1, max_waiting_requests=1)
    with ThreadPoolExecutor(32) as pool:  # more requests in flight than may wait in an engine
        answers = list(pool.map(lambda _: cluster.get("/v1/models"), range(128)))
    assert Counter(answer.status_code for answer in answers) == {200: 128}
    with ThreadPoolExecutor(2) as pool:
        work = [pool.submit(ask, cluster.url, is_stream=False, num_tokens=16000)]
        eventually(lambda: cluster.running() == 1, "one runs")
        work.append(pool.submit(ask, cluster.url, is_stream=False, num_tokens=1))
        eventually(lambda: cluster.metric("distilgpt2_waiting_sequences") == 1, "one waits")
        refused = cluster.complete(prompt="once", max_tokens=1)
        assert [task.result().kind for task in work] == ["whole"] * 2
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"replicas": 2}, "^replicas: Extra"),
        ({"cores": 0}, "^cores: "),
        ({"min_replicas": 2, "max_replicas": 1}, r"^max_replicas \(1\) is below min_replicas \(2\)"),
    ],
)
def test_an_invalid_argument_is_named(arguments: Any, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        app(arguments)


def test_keys_apply_to_all_replicas(cluster: Any, settings: Any) -> None:
    key = "sk-0123456789abcdefghijklmnopqrstuv"
    cluster.deploy(**settings, api_keys=key)

    assert cluster.complete(prompt="once").status_code == 401
    assert cluster.get("/metrics").status_code == 401
    assert cluster.get("/livez").status_code == cluster.get("/readyz").status_code == 200
    answer = cluster.get("/v1/models", headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 200


def test_a_batch_is_answered_through_any_replica(cluster: Any, settings: Any, tmp_path: Path) -> None:
    """On one machine, all replicas reach a store in a folder."""
    cluster.deploy(replicas=2, **settings, batch_store=tmp_path / "store")
    eventually(lambda: len(cluster.replicas()) == 2, "both replicas answer")
    body = {"prompt": "once", "max_tokens": 2}
    lines = [
        json.dumps({"custom_id": f"{number}", "method": "POST", "url": "/v1/completions", "body": body})
        for number in range(20)
    ]
    form = {"files": {"file": ("input", "\n".join(lines).encode())}, "data": {"purpose": "batch"}}
    file_id = cluster.post("/v1/files", **form).json()["id"]
    asked = {"input_file_id": file_id, "endpoint": "/v1/completions", "completion_window": "24h"}
    batch_id = cluster.post("/v1/batches", json=asked).json()["id"]

    def ended() -> Any:
        batch = cluster.get(f"/v1/batches/{batch_id}").json()
        return batch if batch["status"] in {"completed", "failed"} else None

    output_id = eventually(ended, "the batch ends")["output_file_id"]
    answered = [json.loads(line) for line in cluster.get(f"/v1/files/{output_id}/content").text.splitlines()]
    assert [answer["custom_id"] for answer in answered] == [f"{number}" for number in range(20)]
    assert {answer["response"]["status_code"] for answer in answered} == {200}
