"""Usage of keys with real processes: it outlives `kill -9`, is counted once, and is shared by replicas."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import httpx

KEY = "dg2-alice-0123456789"
HEADERS = {"authorization": f"Bearer {KEY}"}


def complete(server: Any) -> int:
    """Returns the tokens of the answer's usage."""
    answer = server.post("/v1/completions", json={"prompt": "once", "max_tokens": 5}, headers=HEADERS)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["usage"]["total_tokens"])


def report(server: Any) -> Any:
    [found] = server.get("/v1/usage", headers=HEADERS).json()["data"]
    return found


def is_written(server: Any) -> bool:
    page = server.get("/metrics", headers=HEADERS).text
    return "distilgpt2_usage_unwritten_rows 0.0" in page and "distilgpt2_usage_store_up 1.0" in page


def test_usage_outlives_a_kill_and_is_shared(launch: Any, wait_until: Any, read_events: Any, tmp_path: Path) -> None:
    settings = {"api_keys": f"alice:{KEY}", "usage_store": tmp_path / "usage"}
    killed, replica = launch("uvicorn", **settings), launch("uvicorn", **settings)
    for server in (killed, replica):
        server.wait_listening()
        server.wait_ready()
    num_tokens = sum(complete(killed) for _ in range(3))
    body = {"prompt": "once", "max_tokens": 10_000, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{killed.url}/v1/completions", json=body, headers=HEADERS, timeout=30) as stream:
        events = read_events(stream)  # kept: its end would close the connection
        next(events)
        killed.signal(signal.SIGKILL)
        killed.wait_exit()

    num_tokens += complete(replica)
    restarted = launch("uvicorn", **settings)
    restarted.wait_listening()
    restarted.wait_ready()
    num_tokens += complete(restarted)
    wait_until(lambda: is_written(replica) and is_written(restarted), "the usage is stored")
    for server in (replica, restarted):
        found = report(server)
        assert (found["requests"], found["total_tokens"]) == (5, num_tokens)
