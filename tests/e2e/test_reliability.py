"""Short forms of `benchmarks/reliability/`: many clients, disconnects, killed workers and processes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import uvloop
from benchmarks.owned_process import children_of
from benchmarks.reliability.disconnects import hang_up
from benchmarks.reliability.heavy_bodies import Row, build_rows
from benchmarks.reliability.heavy_requests import build_request, send
from benchmarks.reliability.http_exchange import (
    ERROR,
    FINISH,
    Connection,
    ask_once,
    build_completion,
    build_get,
    try_once,
)
from benchmarks.reliability.soak import is_expected, run_batch
from benchmarks.reliability.trial import count_fds

NUM_BYTES = 256


def worker_pid(server: Any) -> int:
    return children_of(server.process.pid)[0]


def test_idle_connections_do_not_delay_a_probe(server: Any) -> None:
    async def slowest_probe_s() -> float:
        with ExitStack() as stack:
            for _ in range(200):
                connection = stack.enter_context(await Connection.open(server.port))
                assert (await connection.ask(build_get("/livez"))).status == 200
            answers = [await ask_once(server.port, build_get("/livez")) for _ in range(10)]
            return max(answer.head_s - answer.sent_s for answer in answers)

    assert uvloop.run(slowest_probe_s()) < 1.0


def test_clients_that_disconnect_at_random_leave_nothing_behind(server: Any, wait_until: Callable[..., Any]) -> None:
    num_fds = count_fds(worker_pid(server))

    async def vanish() -> None:
        await asyncio.gather(*(hang_up(server.port, random.Random(seed), vocab=NUM_BYTES) for seed in range(30)))

    uvloop.run(vanish())
    wait_until(lambda: server.metric("distilgpt2_running_sequences") == 0, "nothing runs")
    wait_until(lambda: server.metric("distilgpt2_waiting_sequences") == 0, "nothing waits")
    assert server.metric("distilgpt2_kv_cache_usage_ratio") == 0
    wait_until(lambda: count_fds(worker_pid(server)) <= num_fds, "their connections are closed")


def test_requests_of_every_kind_leave_no_file_open(server: Any, wait_until: Callable[..., Any]) -> None:
    endings: Counter[str] = Counter()
    uvloop.run(run_batch(server.port, 20, 4, random.Random(0), endings))  # files that open only once open here
    num_fds = count_fds(worker_pid(server))
    uvloop.run(run_batch(server.port, 200, 8, random.Random(1), endings))
    assert all(is_expected(ending) for ending in endings), endings
    wait_until(lambda: count_fds(worker_pid(server)) <= num_fds, "open files are as many as before")


@pytest.mark.reported("attacks with long stop sequences on many prompts, and with twenty long texts at once")
def test_the_heaviest_requests_are_answered_or_refused(server: Any) -> None:
    """Each as its table row expects. (A benchmark measures how long other streams stall.)"""
    names = {
        "completions: stop",
        "completions: stop, n",
        "completions: stop, past its bound",
        "completions: stop of 1.9 MB",
        "completions: bad_words, past its bound",
        "completions: prompt with truncate_prompt_tokens",
        "TGI: stop, best_of",
        "tokenize: spaces past the bound",
        "hangs up: stop",
    }
    rows = [row for row in build_rows(20) if row.name in names]
    assert {row.name for row in rows} == names

    async def send_all(row: Row) -> Counter[str]:
        endings: Counter[str] = Counter()
        requests = [build_request(path, body) for path, body in row.requests]
        await asyncio.gather(*(send(server.port, row, request, endings) for request in requests))
        return endings

    for row in rows:
        assert uvloop.run(send_all(row)).keys() <= set(row.endings), row.name


def test_a_sigterm_ends_every_stream_properly_and_the_process_in_time(launch: Callable[..., Any]) -> None:
    """Short streams finish, the others end with the error event. New requests are refused."""
    server = launch(drain_s=0.5)
    server.wait_listening()
    server.wait_ready()

    async def drain() -> tuple[list[str], str]:
        has_begun = [asyncio.Event() for _ in range(8)]

        async def stream(index: int) -> str:
            request = build_completion(max_tokens=60 if index % 2 else 16000, stream=True)
            with await Connection.open(server.port) as connection:
                return (await connection.ask(request, on_head=has_begun[index].set)).ending

        streams = [asyncio.create_task(stream(index)) for index in range(len(has_begun))]
        await asyncio.gather(*(event.wait() for event in has_begun))
        server.signal(signal.SIGTERM)
        while (late := await try_once(server.port, build_completion(max_tokens=1))) == "200":
            pass  # Gunicorn's master is forwarding the signal to its worker
        return await asyncio.gather(*streams), late

    begun_s = time.monotonic()
    endings, late = uvloop.run(drain())
    assert set(endings[::2]) == {ERROR}
    assert set(endings[1::2]) <= {FINISH, ERROR}  # on a slow machine even short ones may not finish
    assert late in {"503", "refused"}
    assert server.wait_exit() == 0
    assert time.monotonic() - begun_s < 10  # Gunicorn would kill it after 30 s.


def test_a_killed_worker_is_replaced_and_its_streams_do_not_look_whole(
    launch: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    server = launch()
    server.wait_listening()
    server.wait_ready()
    killed = worker_pid(server)

    async def stream_until_killed() -> str:
        with await Connection.open(server.port) as connection:
            request = build_completion(max_tokens=16000, stream=True)
            answer = await connection.ask(request, on_head=lambda: os.kill(killed, signal.SIGKILL))
            return answer.ending

    assert uvloop.run(stream_until_killed()) == "cut in mid-answer"
    wait_until(lambda: children_of(server.process.pid) not in ([], [killed]), "there is another worker")
    server.wait_ready()
    assert server.complete(prompt="once", max_tokens=3).status_code == 200
