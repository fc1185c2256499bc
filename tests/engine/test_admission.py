"""The queue's two bounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from distilgpt2_api.core.errors import OverloadedError
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.admission import Admission

RequestBuilder = Callable[..., GenerationRequest]


def test_tokens_count_for_every_sequence_and_come_back_at_the_end(build_request: RequestBuilder) -> None:
    admission = Admission(max_waiting_requests=10, max_waiting_tokens=100)
    first = build_request("1234", num_sequences=3, max_tokens=6)
    admission.admit(first)
    assert (admission.num_waiting_requests, admission.num_waiting_tokens) == (1, 30)

    admission.mark_started(first.request_id)
    admission.release(first.request_id)

    assert (admission.num_waiting_requests, admission.num_waiting_tokens) == (0, 0)


def test_a_queue_full_of_tokens_refuses_one_more_until_one_starts(build_request: RequestBuilder) -> None:
    admission = Admission(max_waiting_requests=10, max_waiting_tokens=100)
    first = build_request("1234", max_tokens=60)
    admission.admit(first)

    with pytest.raises(OverloadedError, match="64 tokens wait"):
        admission.admit(build_request("1234", max_tokens=60))

    admission.mark_started(first.request_id)
    admission.admit(build_request("1234", max_tokens=60))


def test_an_empty_queue_takes_any_request(build_request: RequestBuilder) -> None:
    """Else a request over the token bound would be told to come back, for ever."""
    admission = Admission(max_waiting_requests=1, max_waiting_tokens=1)

    admission.admit(build_request("a long prompt", max_tokens=60))

    assert admission.num_waiting_requests == 1


def test_a_long_queue_asks_for_a_longer_wait_but_never_over_two_minutes(build_request: RequestBuilder) -> None:
    waits = []
    for size in (1, 5_000, 10_000_000):
        admission = Admission(max_waiting_requests=1, max_waiting_tokens=1)
        admission.admit(build_request("x", max_tokens=size))
        with pytest.raises(OverloadedError) as refused:
            admission.admit(build_request("x"))
        waits.append(refused.value.retry_after_s)

    assert waits == [1.0, pytest.approx(5.001), 120.0]
