from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.scheduling.sequence import Sequence, rank_of
from distilgpt2_api.scheduling.waiting import WaitingQueue


@pytest.fixture
def arrive() -> Callable[..., Sequence]:
    """Create a sequence with a prompt of 3 tokens, whose id is its number in the order of arrival."""

    def make(arrival: int, leader_id: int | None = None, priority: int = 0, caller: str = "") -> Sequence:
        sequence = Sequence(
            sequence_id=arrival,
            prompt_token_ids=(1, 2, 3),
            params=SamplingParams(),
            seed=0,
            num_positions=16,
            eos_token_ids=(),
            leader_id=leader_id,
            priority=priority,
            caller=caller,
        )
        sequence.arrival = arrival
        return sequence

    return make


def ids(queue: WaitingQueue) -> list[int]:
    return [sequence.sequence_id for sequence in queue]


def test_first_come_first_served(arrive: Callable[..., Sequence]) -> None:
    queue = WaitingQueue()
    assert queue.first is None
    for arrival in (1, 2, 3):
        queue.add(arrive(arrival))
    assert queue.first is not None
    assert queue.first.sequence_id == 1
    assert ids(queue) == [1, 2, 3]
    assert len(queue) == 3


@pytest.mark.parametrize(("arrival", "order"), [(0, [0, 2, 4]), (3, [2, 3, 4]), (5, [2, 4, 5])])
def test_a_preempted_sequence_returns_to_its_position(
    arrive: Callable[..., Sequence], arrival: int, order: list[int]
) -> None:
    queue = WaitingQueue()
    queue.add(arrive(2))
    queue.add(arrive(4))
    queue.add(arrive(arrival))
    assert ids(queue) == order


def test_the_lower_priority_is_first_and_equals_keep_the_order_of_arrival(arrive: Callable[..., Sequence]) -> None:
    queue = WaitingQueue()
    for arrival, priority in enumerate([0, 5, -3, 0, 5, -3, 0]):
        queue.add(arrive(arrival, priority=priority))
    assert ids(queue) == [2, 5, 0, 3, 6, 1, 4]
    assert len(queue) == 7
    for expected in ids(queue):
        first = queue.first
        assert first is not None
        assert first.sequence_id == expected
        queue.remove(first)
    assert (len(queue), queue.first) == (0, None)


@pytest.mark.parametrize(
    ("arrival", "priority", "order"),
    [
        (0, 0, [2, 0, 1, 4, 3]),
        (5, 0, [2, 1, 4, 5, 3]),
        (0, 9, [2, 1, 4, 0, 3]),
        (5, -2, [5, 2, 1, 4, 3]),
        (0, 20, [2, 1, 4, 3, 0]),
    ],
)
def test_a_preempted_sequence_returns_among_its_equals(
    arrive: Callable[..., Sequence], arrival: int, priority: int, order: list[int]
) -> None:
    """A preempted sequence does not go before a lower priority."""
    queue = WaitingQueue()
    for waiting, own_priority in ((1, 0), (2, -1), (3, 9), (4, 0)):
        queue.add(arrive(waiting, priority=own_priority))
    queue.add(arrive(arrival, priority=priority))
    assert ids(queue) == order


def test_followers_return_to_their_priority(arrive: Callable[..., Sequence]) -> None:
    queue = WaitingQueue()
    for arrival in (1, 2):
        queue.defer(arrive(arrival, leader_id=0, priority=7), 0)
    for arrival, priority in ((3, 7), (4, 0), (5, 8)):
        queue.add(arrive(arrival, priority=priority))
    queue.release_followers(0)
    assert ids(queue) == [4, 1, 2, 3, 5]
    assert len(queue) == 5


def test_followers_are_kept_apart_and_return_in_order(arrive: Callable[..., Sequence]) -> None:
    queue = WaitingQueue()
    queue.add(arrive(1))
    for arrival in (2, 3):
        queue.defer(arrive(arrival, leader_id=1), 1)
    queue.add(arrive(4))
    assert len(queue) == 4
    queue.release_followers(1)
    assert ids(queue) == [1, 2, 3, 4]
    assert len(queue) == 4


def test_any_sequence_can_be_removed(arrive: Callable[..., Sequence]) -> None:
    queue = WaitingQueue()
    waiting = [arrive(1), arrive(2), arrive(3, leader_id=1), arrive(4, leader_id=1)]
    queue.add(waiting[0])
    queue.add(waiting[1])
    queue.defer(waiting[2], 1)
    queue.defer(waiting[3], 1)
    for sequence in (waiting[1], waiting[2], waiting[0], waiting[3]):
        queue.remove(sequence)
        assert sequence.sequence_id not in ids(queue)
    assert (len(queue), queue.first) == (0, None)
    queue.release_followers(1)
    assert len(queue) == 0


def test_the_head_of_each_callers_queue_is_known(arrive: Callable[..., Sequence]) -> None:
    draw = random.Random(0)
    queue, waiting = WaitingQueue(), list[Sequence]()
    for arrival in range(500):
        if waiting and draw.random() < 0.4:
            queue.remove(waiting.pop(draw.randrange(len(waiting))))
        else:
            waiting.append(arrive(arrival, priority=draw.randrange(3), caller=draw.choice("abcd")))
            queue.add(waiting[-1])
        in_line = sorted(waiting, key=rank_of)
        firsts = {sequence.caller_key: sequence for sequence in reversed(in_line)}
        assert (list(queue), len(queue)) == (in_line, len(in_line))
        assert list(queue.heads) == sorted(firsts.values(), key=rank_of)
        assert queue.first is (in_line[0] if in_line else None)
