"""Batches of real servers that are killed, drained or replaced, and of two servers on one store."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmarks.owned_process import children_of
from sqlalchemy import create_engine, update

from distilgpt2_api.batch.store.store import DATABASE_NAME, open_store
from distilgpt2_api.batch.store.tables import STORE_VERSION

NUM_LINES = 400
SLOW = {"max_num_sequences": 4}
"""For batches that are interrupted halfway: progress is recorded four times a second, and fewer lines would be done."""
ASKED = {"endpoint": "/v1/completions", "completion_window": "24h"}


def started(launch: Callable[..., Any], store: Path, **settings: Any) -> Any:
    server = launch(batch_store=store, **settings)
    server.wait_listening()
    server.wait_ready()
    return server


def create(server: Any, num_lines: int = NUM_LINES) -> str:
    lines = [
        {
            "custom_id": f"{number}",
            "method": "POST",
            "url": "/v1/completions",
            "body": {"prompt": f"{number}", "max_tokens": 30, "ignore_eos": True, "seed": number},
        }
        for number in range(num_lines)
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    uploaded = server.post("/v1/files", files={"file": ("input", content)}, data={"purpose": "batch"})
    created = server.post("/v1/batches", json={"input_file_id": uploaded.json()["id"], **ASKED})
    batch_id: str = created.json()["id"]
    return batch_id


def read(server: Any, batch_id: str) -> Any:
    return server.get(f"/v1/batches/{batch_id}").json()


def check_output(server: Any, batch: Any, num_lines: int = NUM_LINES) -> None:
    """Every line once and in order."""
    assert batch["status"] == "completed"
    assert batch["error_file_id"] is None
    content = server.get(f"/v1/files/{batch['output_file_id']}/content").content
    answers = [json.loads(line) for line in content.split(b"\n")[:-1]]
    assert [answer["custom_id"] for answer in answers] == [f"{number}" for number in range(num_lines)]
    for number in (0, num_lines // 2, num_lines - 1):
        asked = server.complete(prompt=f"{number}", max_tokens=30, ignore_eos=True, seed=number).json()
        assert answers[number]["response"]["body"]["choices"] == asked["choices"]


@pytest.mark.servers
def test_a_killed_servers_batch_is_finished_by_the_next_server_each_line_once(
    launch: Callable[..., Any], wait_until: Callable[..., Any], tmp_path: Path
) -> None:
    """SIGKILL of master and worker, early or halfway: lines that are already answered keep their answers.

    Two stores, so that both wait for a dead owner's lease at once.
    """

    def begin_and_die(store: Path, share: float) -> tuple[str, int]:
        server = started(launch, store, **SLOW)
        batch_id = create(server)

        def find_completed() -> int:
            num_completed: int = read(server, batch_id)["request_counts"]["completed"]
            return num_completed if num_completed >= share * NUM_LINES else 0

        num_seen = wait_until(find_completed, "answers")
        for pid in (*children_of(server.process.pid), server.process.pid):
            os.kill(pid, signal.SIGKILL)
        server.wait_exit()
        return batch_id, num_seen

    stores = [tmp_path / "soon", tmp_path / "halfway"]
    begun = [begin_and_die(store, share) for store, share in zip(stores, (0.02, 0.5), strict=True)]
    servers = [started(launch, store) for store in stores]
    for server, (batch_id, num_seen) in zip(servers, begun, strict=True):
        wait_until(
            lambda server=server, batch_id=batch_id: read(server, batch_id)["status"] == "completed", "the next ends it"
        )
        check_output(server, read(server, batch_id))
        assert 0 < server.metric("distilgpt2_batch_lines_total", result="completed") <= NUM_LINES - num_seen


def test_a_drained_servers_batch_resumes_at_once(
    launch: Callable[..., Any], wait_until: Callable[..., Any], tmp_path: Path
) -> None:
    """SIGTERM does not wait for its lines. The server releases the batch with all results so far."""
    server = started(launch, tmp_path, drain_s=60, **SLOW)
    batch_id = create(server)
    wait_until(lambda: read(server, batch_id)["request_counts"]["completed"] > 0, "answers")
    server.signal(signal.SIGTERM)
    assert server.wait_exit() == 0
    assert "Traceback" not in server.log
    server = started(launch, tmp_path)
    wait_until(lambda: f"batch {batch_id} is claimed" in server.log, "the next server takes it up")
    wait_until(lambda: read(server, batch_id)["status"] == "completed", "and ends it")
    check_output(server, read(server, batch_id))


def test_two_workers_and_a_second_server_on_one_store(
    launch: Callable[..., Any], wait_until: Callable[..., Any], tmp_path: Path
) -> None:
    """Independent processes: each line of each batch is run by one of them."""
    servers = [started(launch, tmp_path, num_workers=1) for _ in range(2)]
    batch_ids = [create(server, 100) for server in servers * 2]
    for batch_id in batch_ids:
        wait_until(lambda batch_id=batch_id: read(servers[0], batch_id)["status"] == "completed", "all end")
        check_output(servers[1], read(servers[1], batch_id), 100)

    def count_answered() -> Any:
        return sum(server.metric("distilgpt2_batch_lines_total", result="completed") for server in servers)

    wait_until(lambda: count_answered() >= 400, "all are counted")
    assert count_answered() == 400


def test_a_store_of_another_version_stops_the_start_with_one_clear_line(
    launch: Callable[..., Any], tmp_path: Path
) -> None:
    open_store(str(tmp_path)).close()
    engine = create_engine(f"sqlite:///{tmp_path / DATABASE_NAME}")
    with engine.begin() as connection:
        connection.execute(update(STORE_VERSION).values(version=7))
    engine.dispose()
    server = launch(batch_store=tmp_path)
    assert server.wait_exit() != 0
    assert server.log.count('"event": "the store sqlite:///') == 1
    assert "has version 7, but this program needs version 1" in server.log
    assert "Traceback" not in server.log
