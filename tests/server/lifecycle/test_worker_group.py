"""The state that the workers of one Gunicorn master share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from distilgpt2_api.server.lifecycle.worker_group import SHUTDOWN_SIGNALS, WorkerGroup


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_workers_share_how_many_were_started_and_whether_the_service_ends() -> None:
    """Across a fork, in both directions. A new worker resets the announcement."""
    group = WorkerGroup()
    group.record_start(7)
    child = os.fork()
    if not child:
        group.announce_service_end()
        os._exit(group.youngest_age)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert group.is_service_ending
    group.record_start(8)
    assert (group.youngest_age, group.is_service_ending) == (8, False)


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """The signals that reach Gunicorn's own handlers."""
    numbers: list[int] = []
    previous = [
        (number, signal.signal(number, lambda number, frame: numbers.append(number))) for number in SHUTDOWN_SIGNALS
    ]
    yield numbers
    for number, handler in previous:
        signal.signal(number, handler)


@pytest.mark.parametrize("first", SHUTDOWN_SIGNALS)
def test_an_interrupt_after_a_first_signal_demands_an_exit(heard: list[int], first: signal.Signals) -> None:
    """Also if several workers were started, and if Gunicorn has not yet handled the first one."""
    group = WorkerGroup()
    for age in (1, 2):
        group.record_start(age)
        group.watch_signals()
    signal.raise_signal(first)
    signal.raise_signal(signal.SIGTERM)
    assert not group.is_exit_demanded
    signal.raise_signal(signal.SIGINT)
    assert group.is_exit_demanded
    assert heard == [first, signal.SIGTERM, signal.SIGINT]


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", SHUTDOWN_SIGNALS)
def test_a_signal_to_the_master_announces_the_end(number: signal.Signals) -> None:
    """For good, even if a reload then starts another worker."""
    group = WorkerGroup()
    group.record_start(1)
    group.watch_signals()
    assert not group.is_service_ending
    signal.raise_signal(number)
    assert group.is_service_ending
    group.record_start(2)
    assert group.is_service_ending
