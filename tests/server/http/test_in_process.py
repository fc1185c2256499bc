"""Calls from within the process get the same responses as over a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.server.http.in_process import post

PARTS_THAT_DIFFER = {"id", "created"}


def ask(client: Any, path: str, **body: object) -> Any:
    return client.runner.run(post(client.scene.app, path, json.dumps(body).encode()))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "a"}),
        ("/v1/completions", {"prompt": ["a", "b"], "n": 2, "logprobs": 1}),
        ("/v1/score", {"input": "ab"}),
        ("/v1/completions", {"prompt": "a", "nonsense": 1}),
        ("/v1/completions", {"prompt": "a", "model": "other"}),
        ("/v1/chat/completions", {"messages": []}),
        ("/v1/nowhere", {}),
    ],
)
def test_a_response_equals_that_over_http(client: Any, path: str, body: dict[str, object]) -> None:
    over_http = client.post(path, json=body)
    answer = ask(client, path, **body)
    expected = over_http.json()
    assert (answer.status, answer.headers.keys()) == (over_http.status_code, over_http.headers.keys())
    assert answer.headers["x-request-id"] != over_http.headers["x-request-id"]
    found = json.loads(answer.body)
    assert {name: found[name] for name in found.keys() - PARTS_THAT_DIFFER} == {
        name: expected[name] for name in expected.keys() - PARTS_THAT_DIFFER
    }


def test_headers_reach_the_application(client: Any) -> None:
    headers = [(b"x-request-id", b"mine")]
    answer = client.runner.run(post(client.scene.app, "/v1/completions", b'{"prompt": "a"}', headers=headers))
    assert answer.headers["x-request-id"] == "mine"


def test_cancelling_the_task_aborts_the_request(open_client: Callable[..., Any], build_runner: Any) -> None:
    client = open_client(runner=build_runner(is_gated=True))
    engine, runner = client.scene.engine, client.scene.runner

    async def play() -> None:
        loop = asyncio.get_running_loop()
        running = asyncio.Event()

        def note_step(_plan: object) -> None:
            loop.call_soon_threadsafe(running.set)

        runner.on_run = note_step
        task = asyncio.create_task(post(client.scene.app, "/v1/completions", b'{"prompt": "a"}'))
        runner.gate.release()
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert engine.num_requests == 0
        runner.open_gate()

    client.runner.run(play())
