"""More than one Gunicorn worker: each serves its own metrics, with its pid as a label."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

NUM_WORKERS = 2
NUM_TOKENS = 4
COMPLETION_TOKENS = "distilgpt2_completion_tokens_total"


def workers_of(service: Any) -> set[int]:
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
    return {int(pid) for pid in children.read_text().split()}


def read_page(service: Any) -> tuple[int, dict[str, float]]:
    """The pid of the worker that answered, and its values. A new connection, so that either worker may answer."""
    samples = [
        sample
        for family in text_string_to_metric_families(service.get("/metrics").text)
        for sample in family.samples
        if sample.labels.get("state", "ready") == "ready"
    ]
    [pid] = {sample.labels["pid"] for sample in samples}
    return int(pid), {sample.name: sample.value for sample in samples}


def read_all(service: Any, wait_until: Callable[..., Any]) -> dict[int, dict[str, float]]:
    """By pid, once every worker is ready."""
    pages: dict[int, dict[str, float]] = {}

    def has_all() -> bool:
        pages.update([read_page(service)])
        living = workers_of(service)
        ready = {pid for pid in living & pages.keys() if pages[pid]["distilgpt2_engine_state"]}
        return len(living) == NUM_WORKERS and ready == living

    wait_until(has_all, "every worker has answered and is ready")
    return {pid: pages[pid] for pid in workers_of(service)}


def complete(service: Any) -> None:
    """On a new connection, so that either worker may get it."""
    assert service.complete(prompt="once", max_tokens=NUM_TOKENS, ignore_eos=True).status_code == 200


def test_each_worker_serves_its_own_metrics(launch: Callable[..., Any], wait_until: Callable[..., Any]) -> None:
    """Together the pages count all requests. `kill -9` of one worker keeps the other's values. A log line warns."""
    service = launch("serve", num_workers=NUM_WORKERS, drain_s=1)
    service.wait_listening()
    assert read_all(service, wait_until).keys() == workers_of(service)
    for _ in range(20):
        complete(service)
    pages = read_all(service, wait_until)
    assert sum(page[COMPLETION_TOKENS] for page in pages.values()) == 20 * NUM_TOKENS
    num_gaps = sum(page["distilgpt2_inter_token_latency_seconds_count"] for page in pages.values())
    assert num_gaps == 20 * (NUM_TOKENS - 1)
    assert {page["distilgpt2_worker_starts_total"] for page in pages.values()} == {1}

    victim, survivor = sorted(pages)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(workers_of(service) - {victim}) == NUM_WORKERS, "there is a new worker")
    after = read_all(service, wait_until)
    assert after[survivor][COMPLETION_TOKENS] == pages[survivor][COMPLETION_TOKENS]
    [newcomer] = after.keys() - {survivor}
    assert after[newcomer][COMPLETION_TOKENS] == 0
    complete(service)
    counted = sum(page[COMPLETION_TOKENS] for page in read_all(service, wait_until).values())
    assert counted == after[survivor][COMPLETION_TOKENS] + NUM_TOKENS

    service.signal(signal.SIGTERM)
    assert service.wait_exit() == 0
    assert service.log.count("One worker is recommended") == 1
    assert "Traceback" not in service.log
