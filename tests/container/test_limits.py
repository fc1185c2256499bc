"""The service stays within its resource limits, however long it runs."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from tests.container.engines import Container, Engine, Options
from tests.container.http import complete_on

LIMITS = ("--cpus=1", "--memory=512m", "--pids-limit=64")
WARM_UP_REQUESTS = 200
REQUESTS = 1000
MAX_GROWTH = 0.03
USAGE_PROGRAM = """
import json, os, pathlib
usage = {"resident_kb": 0, "thread_ticks": {}}
for process in pathlib.Path("/proc").glob("[0-9]*"):
    arguments = (process / "cmdline").read_bytes().split(b"\\0")
    if not any(argument.endswith(b"/gunicorn") for argument in arguments):
        continue
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    usage["resident_kb"] += int(status["VmRSS"].split()[0])
    for task in (process / "task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        usage["thread_ticks"][task.name] = int(fields[11]) + int(fields[12])
print(json.dumps(usage))
"""
"""A program for `python -c` inside: resident memory of Gunicorn's processes, and CPU time of their threads."""


@pytest.fixture
def limited_service(engine: Engine, image: str) -> Iterator[Container]:
    if engine.name == "apptainer":
        pytest.skip("apptainer: limits need systemd and control groups version 2")
    with engine.running(image, Options(flags=LIMITS)) as container:
        container.wait_until_ready()
        yield container


def test_a_thousand_requests_in_one_core_and_half_a_gigabyte(limited_service: Container) -> None:
    """Acceptance 2: one compute thread, constant memory, no process beyond the limit of 64."""
    config = limited_service.execute("distilgpt2-api", "config").stdout
    assert "auto (1)" in next(line for line in config.splitlines() if line.startswith("num_threads"))

    send_requests(limited_service.port, WARM_UP_REQUESTS)
    before = usage(limited_service)
    send_requests(limited_service.port, REQUESTS)
    after = usage(limited_service)

    assert after["resident_kb"] < 512 * 1024
    assert after["resident_kb"] <= before["resident_kb"] * (1 + MAX_GROWTH)
    assert len(after["thread_ticks"]) <= 64
    # One thread computes and one handles HTTP; the others (Gunicorn's master, idle pools) sleep.
    ticks = {thread: num - before["thread_ticks"].get(thread, 0) for thread, num in after["thread_ticks"].items()}
    busy = [num for num in ticks.values() if num > 0.1 * sum(ticks.values())]
    assert len(busy) <= 2, ticks


def send_requests(port: int, number: int) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        for index in range(number):
            answer = complete_on(connection, prompt=f"Story number {index}", max_tokens=4, seed=index)
            assert answer["choices"][0]["finish_reason"] in {"length", "stop"}


def usage(container: Container) -> Any:
    return json.loads(container.execute("python", "-c", USAGE_PROGRAM).stdout)
