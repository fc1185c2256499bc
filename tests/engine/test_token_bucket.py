"""A rate limit that allows bursts."""

from __future__ import annotations

import pytest

from distilgpt2_api.engine.token_bucket import TokenBucket


def test_it_starts_full_and_holds_a_minute_by_default() -> None:
    bucket = TokenBucket(10.0, None, now_s=0.0)
    assert bucket.seconds_until_full(0.0) == 0.0
    assert bucket.wait_for(600, 0.0) == 0.0
    bucket.take(600, 0.0)
    assert bucket.wait_for(1, 0.0) == pytest.approx(0.1)
    assert bucket.seconds_until_full(59.0) == pytest.approx(1.0)
    assert bucket.seconds_until_full(61.0) == 0.0


def test_it_never_exceeds_its_capacity() -> None:
    bucket = TokenBucket(10.0, 50, now_s=0.0)
    bucket.take(-1000, 5.0)
    bucket.take(50, 1000.0)
    assert bucket.wait_for(20, 1000.0) == pytest.approx(2.0)


def test_a_request_over_the_capacity_needs_all_of_it_and_delays_the_next() -> None:
    bucket = TokenBucket(10.0, 50, now_s=0.0)
    bucket.take(20, 0.0)
    assert bucket.wait_for(150, 0.0) == pytest.approx(2.0)
    assert bucket.wait_for(150, 2.0) == 0.0
    bucket.take(150, 2.0)
    assert bucket.wait_for(1, 2.0) == pytest.approx(10.1)


def test_a_negative_level_is_refilled_first() -> None:
    bucket = TokenBucket(10.0, 50, now_s=0.0)
    bucket.take(150, 0.0)
    assert bucket.wait_for(10, 0.0) == pytest.approx(11.0)
    assert bucket.wait_for(10, 11.0) == 0.0
