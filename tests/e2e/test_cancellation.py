"""A client's hang-up aborts its requests, under every server."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.parametrize("kind", ["gunicorn", "gunicorn-plain", "uvicorn", "uvicorn-h11"])
def test_a_hang_up_frees_the_blocks_running_or_queued(
    launch: Callable[..., Any], wait_until: Callable[..., Any], kind: str
) -> None:
    """Streamed or whole, in prefill or decode. A counter shows it, and the next queued request runs."""
    server = launch(kind, max_num_sequences=1)
    server.wait_listening()
    server.wait_ready()

    def num_in(state: str) -> float:
        return float(server.metric(f"distilgpt2_{state}_sequences"))

    def ask(*, stream: bool) -> socket.socket:
        asked = {"prompt": "x" * 300, "max_tokens": 15000, "ignore_eos": True, "stream": stream}
        body = json.dumps(asked).encode()
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n" % len(body) + body
        )
        return connection

    running = ask(stream=True)
    wait_until(lambda: num_in("running") == 1, "the first runs")
    queued = [ask(stream=stream) for stream in (True, False)]
    wait_until(lambda: num_in("waiting") == 2, "the others wait")
    queued[0].close()
    queued[1].close()
    wait_until(lambda: num_in("waiting") == 0, "no request is queued")
    assert num_in("running") == 1
    running.close()
    wait_until(lambda: num_in("running") == 0, "nothing runs any more")
    whole = ask(stream=False)
    wait_until(lambda: num_in("running") == 1, "the next runs")
    whole.close()
    wait_until(lambda: num_in("running") == 0, "it has ended too")
    wait_until(lambda: server.metric("distilgpt2_sequences_total", finish_reason="abort") == 4, "all are counted")
    wait_until(lambda: server.metric("distilgpt2_client_disconnects_total") == 4, "the hang-ups are counted")
    assert server.metric("distilgpt2_kv_cache_usage_ratio") == 0
    assert server.complete(prompt="x", max_tokens=2).status_code == 200
    assert "Traceback" not in server.log
