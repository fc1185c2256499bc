from __future__ import annotations

from collections.abc import Callable

import pytest

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.scheduling.sequence import Sequence
from distilgpt2_api.scheduling.waiting import WaitingQueue


@pytest.fixture
def arrive() -> Callable[..., Sequence]:
    """Make a sequence whose id is its place in the order of arrival, with a prompt of 3 tokens."""

    def make(arrival: int, leader_id: int | None = None) -> Sequence:
        sequence = Sequence(
            sequence_id=arrival,
            prompt_token_ids=(1, 2, 3),
            params=SamplingParams(),
            seed=0,
            num_positions=16,
            eos_token_id=None,
            leader_id=leader_id,
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
        queue.append(arrive(arrival))
    assert queue.first is not None
    assert queue.first.sequence_id == 1
    assert ids(queue) == [1, 2, 3]
    assert queue.num_tokens == 9


@pytest.mark.parametrize(("arrival", "order"), [(0, [0, 2, 4]), (3, [2, 3, 4]), (5, [2, 4, 5])])
def test_who_is_put_back_stands_where_it_stood(arrive: Callable[..., Sequence], arrival: int, order: list[int]) -> None:
    queue = WaitingQueue()
    queue.append(arrive(2))
    queue.append(arrive(4))
    queue.put_back(arrive(arrival))
    assert ids(queue) == order


def test_followers_stand_aside_and_come_back_in_their_places(arrive: Callable[..., Sequence]) -> None:
    queue = WaitingQueue()
    queue.append(arrive(1))
    for arrival in (2, 3):
        queue.stand_aside(arrive(arrival, leader_id=1), 1)
    queue.append(arrive(4))
    assert (len(queue), queue.num_tokens) == (4, 12)
    queue.release_followers(1)
    assert ids(queue) == [1, 2, 3, 4]
    assert (len(queue), queue.num_tokens) == (4, 12)


def test_anyone_can_leave_from_anywhere(arrive: Callable[..., Sequence]) -> None:
    queue = WaitingQueue()
    waiting = [arrive(1), arrive(2), arrive(3, leader_id=1), arrive(4, leader_id=1)]
    queue.append(waiting[0])
    queue.append(waiting[1])
    queue.stand_aside(waiting[2], 1)
    queue.stand_aside(waiting[3], 1)
    for sequence in (waiting[1], waiting[2], waiting[0], waiting[3]):
        queue.remove(sequence)
        assert sequence.sequence_id not in ids(queue)
    assert (len(queue), queue.num_tokens, queue.first) == (0, 0, None)
    queue.release_followers(1)
    assert len(queue) == 0
