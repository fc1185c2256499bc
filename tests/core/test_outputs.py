"""Timings of sequences and of whole requests."""

from __future__ import annotations

import pytest

from distilgpt2_api.core.outputs import RequestTimings


def test_the_phases_add_up_to_the_whole() -> None:
    timings = RequestTimings.between(10.0, 10.5, 11.5, 14.5)
    assert (timings.queue_s, timings.prefill_s, timings.decode_s) == (0.5, 1.0, 3.0)
    assert (timings.ttft_s, timings.total_s) == (1.5, 4.5)
    assert timings.decode_tokens_per_s(7) == 2.0


def test_a_phase_that_did_not_come_is_absent() -> None:
    queued = RequestTimings.between(1.0, None, None, 3.0)
    assert (queued.queue_s, queued.prefill_s, queued.decode_s, queued.ttft_s, queued.total_s) == (
        2,
        None,
        None,
        None,
        2,
    )
    scored = RequestTimings.between(1.0, 2.0, None, 5.0)
    assert (scored.queue_s, scored.prefill_s, scored.decode_s, scored.ttft_s, scored.total_s) == (1, 3, None, None, 4)


@pytest.mark.parametrize("num_tokens", [0, 1])
def test_the_first_token_alone_has_no_rate(num_tokens: int) -> None:
    assert RequestTimings.between(0.0, 1.0, 2.0, 3.0).decode_tokens_per_s(num_tokens) is None


def test_tokens_of_one_moment_have_no_rate() -> None:
    assert RequestTimings.between(0.0, 1.0, 2.0, 2.0).decode_tokens_per_s(2) is None


def test_a_request_lasts_from_its_first_step_to_its_last_end() -> None:
    early = RequestTimings.between(0.0, 1.0, 2.0, 4.0)
    late = RequestTimings.between(0.0, 3.0, 3.5, 6.0)
    queued = RequestTimings.between(0.0, None, None, 5.0)
    whole = early.merge(late).merge(queued)
    assert (whole.queue_s, whole.ttft_s, whole.total_s) == (1.0, 2.0, 6.0)
    assert queued.merge(early) == RequestTimings.between(0.0, 1.0, 2.0, 5.0)
    assert queued.merge(queued) == queued
