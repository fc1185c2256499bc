"""The limited process: what a task may not do, and that the next task runs after any of them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.text import limited_process
from distilgpt2_api.text.limited_process import LimitedProcess

MODULE = "tests.text.limited_tasks"


@pytest.fixture
def process() -> Iterator[LimitedProcess]:
    process = LimitedProcess(MODULE, preparation="early")
    yield process
    process.close()


def run(process: LimitedProcess, *task: object) -> Any:
    return process.run(task, max_cpu_s=0.1)


def child_of(pid: int) -> int:
    """The helper forks it soon after an answer."""
    while not (children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        time.sleep(0.001)
    return int(children[0])


def test_a_task_that_takes_too_much_or_crashes_has_no_answer_and_the_next_one_has(
    process: LimitedProcess, tmp_path: Path
) -> None:
    """Neither files nor sockets can be opened, so that a template that leaves its sandbox reaches nothing."""
    for task in (["read"], ["write", str(tmp_path)], ["connect"], ["allocate"], ["spin"], ["crash"]):
        assert run(process, *task) is None
        assert run(process, "echo", task) == task


def test_the_helper_is_prepared_once_and_has_no_environment_of_the_services(
    process: LimitedProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILGPT2_API_KEYS", "secret")

    assert run(process, "prepared") == ["early"]
    assert run(process, "prepared") == ["early"]
    assert set(run(process, "environment")) <= {"PYTHONPATH", "LC_CTYPE"}


def test_a_task_ends_at_the_deadline(process: LimitedProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if it takes no CPU time."""
    assert run(process, "echo", 1) == 1
    monkeypatch.setattr(limited_process, "DEADLINE_S", 0.1)
    assert run(process, "sleep") is None
    monkeypatch.undo()
    assert run(process, "echo", 2) == 2


def test_processes_that_end_between_two_tasks_are_replaced(process: LimitedProcess) -> None:
    """As the kernel ends them when memory runs out. No task gets the answer to another one."""
    for number in range(4):
        assert run(process, "echo", number) in (number, None)
        if process._helper is not None:
            os.kill(child_of(process._helper._process.pid), signal.SIGKILL)
    process.close()

    assert run(process, "echo", 4) == 4
    assert process._helper is not None
    os.kill(process._helper._process.pid, signal.SIGKILL)
    process._helper._process.wait()
    assert run(process, "echo", 5) == 5


def test_a_helper_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not reported as a task that exceeded its limits."""
    with pytest.raises(ConnectionError):
        run(LimitedProcess("tests.text.no_such_module"), "echo", 1)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(FileNotFoundError):
        run(LimitedProcess(MODULE), "echo", 1)


def test_closing_twice_is_harmless(process: LimitedProcess) -> None:
    assert run(process, "echo", 1) == 1
    process.close()
    process.close()
    assert run(process, "echo", 2) == 2
