"""The bounds of the queue and the limits of callers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from distilgpt2_api.core.caller import Caller, CallerLimits
from distilgpt2_api.core.errors import InvalidRequestError, OverloadedError, RateLimitError
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine import admission as admission_module
from distilgpt2_api.engine.admission import GC_THRESHOLD, Admission

RequestBuilder = Callable[..., GenerationRequest]


class SetClock:
    """A clock with a settable time."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


def test_tokens_count_for_every_sequence_until_the_end(build_request: RequestBuilder) -> None:
    admission = Admission(max_waiting_requests=10, max_waiting_tokens=100)
    first = build_request("1234", num_sequences=3, max_tokens=6)
    admission.admit([first])
    assert (admission.num_waiting_requests, admission.num_waiting_tokens) == (1, 30)

    admission.mark_started(first.request_id)
    admission.release(first.request_id)

    assert (admission.num_waiting_requests, admission.num_waiting_tokens) == (0, 0)


def test_a_queue_full_of_tokens_refuses_one_more_until_one_starts(build_request: RequestBuilder) -> None:
    admission = Admission(max_waiting_requests=10, max_waiting_tokens=100)
    first = build_request("1234", max_tokens=60)
    admission.admit([first])

    with pytest.raises(OverloadedError, match="1 requests for 64 tokens are waiting"):
        admission.admit([build_request("1234", max_tokens=60)])

    admission.mark_started(first.request_id)
    admission.admit([build_request("1234", max_tokens=60)])


def test_an_empty_queue_takes_any_request(build_request: RequestBuilder) -> None:
    """Otherwise a request over the token bound would be told to retry forever."""
    admission = Admission(max_waiting_requests=1, max_waiting_tokens=1)

    admission.admit([build_request("a long prompt", max_tokens=60)])

    assert admission.num_waiting_requests == 1


def test_before_the_first_measurement_the_wait_grows_with_the_queue_up_to_two_minutes(
    build_request: RequestBuilder,
) -> None:
    waits = []
    for size in (1, 5_000, 10_000_000):
        admission = Admission(max_waiting_requests=1, max_waiting_tokens=1)
        admission.admit([build_request("x", max_tokens=size)])
        with pytest.raises(OverloadedError) as refused:
            admission.admit([build_request("x")])
        waits.append(refused.value.retry_after_s)

    assert waits == [1.0, pytest.approx(5.001), 120.0]


def test_the_wait_is_the_time_that_the_queue_takes_at_its_throughput(
    build_request: RequestBuilder, clock: SetClock
) -> None:
    """Ten requests of 100 tokens wait and one is served every two seconds: about 20 seconds."""
    admission = Admission(max_waiting_requests=10, max_waiting_tokens=10_000, clock=clock)
    requests = [build_request("1234", max_tokens=96) for _ in range(30)]
    for request in requests[:10]:
        admission.admit([request])
    for served, arriving in zip(requests[:20], requests[10:], strict=True):
        clock.now_s += 2.0
        admission.mark_started(served.request_id)
        admission.admit([arriving])

    with pytest.raises(OverloadedError) as refused:
        admission.admit([build_request("1234", max_tokens=96)])

    assert refused.value.retry_after_s == pytest.approx(20.0, rel=0.05)


def test_time_with_an_empty_queue_does_not_count(build_request: RequestBuilder, clock: SetClock) -> None:
    """After the last one was served, or was removed."""
    admission = Admission(max_waiting_requests=1, max_waiting_tokens=1000, clock=clock)
    served, gone, waiting = (build_request("1234", max_tokens=96) for _ in range(3))
    admission.admit([served])
    clock.now_s += 1.0
    admission.mark_started(served.request_id)
    clock.now_s += 1000.0
    admission.admit([gone])
    admission.release(gone.request_id)
    clock.now_s += 1000.0
    admission.admit([waiting])

    with pytest.raises(OverloadedError) as refused:
        admission.admit([build_request("x")])

    assert refused.value.retry_after_s == 1.0


def test_a_full_queue_admits_a_caller_that_has_less_of_it(build_request: RequestBuilder) -> None:
    """The newest request of the caller with most is shed, and that caller is refused."""
    admission = Admission(max_waiting_requests=4, max_waiting_tokens=10_000)
    greedy, modest = Caller(name="greedy"), Caller(name="modest")
    requests = [build_request() for _ in range(4)]
    for request in requests:
        assert admission.admit([request], greedy) == []

    with pytest.raises(OverloadedError):
        admission.admit([build_request()], greedy)
    shed = admission.admit([build_request()], modest)
    assert shed == [requests[3].request_id]
    for request_id in shed:
        admission.release(request_id)
    assert admission.num_waiting_requests == 4

    assert admission.admit([build_request()], modest) == [requests[2].request_id]
    admission.release(requests[2].request_id)
    with pytest.raises(OverloadedError):  # both have two now
        admission.admit([build_request()], modest)


def test_a_queue_full_of_tokens_admits_a_caller_with_fewer(build_request: RequestBuilder) -> None:
    admission = Admission(max_waiting_requests=100, max_waiting_tokens=1000)
    large = [build_request("1234", max_tokens=296) for _ in range(3)]
    for request in large:
        admission.admit([request], Caller(name="large"))

    shed = admission.admit([build_request("1234", max_tokens=246)], Caller(name="small"))

    assert shed == [large[2].request_id]


def test_started_requests_are_not_shed(build_request: RequestBuilder) -> None:
    admission = Admission(max_waiting_requests=2, max_waiting_tokens=10_000)
    greedy = Caller(name="greedy")
    running, *waiting = (build_request() for _ in range(3))
    admission.admit([running], greedy)
    admission.mark_started(running.request_id)
    for request in waiting:
        admission.admit([request], greedy)

    assert admission.admit([build_request()], Caller(name="modest")) == [waiting[1].request_id]


def test_a_callers_requests_in_flight_are_limited(build_request: RequestBuilder) -> None:
    """Waiting or running. Other callers are not affected."""
    admission = Admission(max_waiting_requests=100, max_waiting_tokens=10_000)
    limits = CallerLimits(max_requests=2)
    first, second = build_request(), build_request()
    admission.admit([first], Caller(name="a", limits=limits))
    admission.admit([second], Caller(name="a", limits=limits))
    admission.mark_started(first.request_id)

    with pytest.raises(RateLimitError, match="2 requests in flight and ask for 1 more; your limit is 2"):
        admission.admit([build_request()], Caller(name="a", limits=limits))
    admission.admit([build_request()], Caller(name="b", limits=limits))
    admission.release(first.request_id)
    admission.release(first.request_id)
    admission.admit([build_request()], Caller(name="a", limits=limits))
    with pytest.raises(RateLimitError):
        admission.admit([build_request()], Caller(name="a", limits=limits))


def test_a_token_rate_allows_bursts_and_reports_the_exact_wait(build_request: RequestBuilder, clock: SetClock) -> None:
    admission = Admission(max_waiting_requests=100, max_waiting_tokens=10_000, clock=clock)
    caller = Caller(name="a", limits=CallerLimits(tokens_per_s=10, burst_tokens=200))
    for _ in range(2):
        admission.admit([build_request("1234", max_tokens=96)], caller)

    with pytest.raises(RateLimitError, match="10 tokens per second") as refused:
        admission.admit([build_request("1234", max_tokens=96)], caller)
    assert refused.value.retry_after_s == pytest.approx(10.0)

    clock.now_s += 9.9
    with pytest.raises(RateLimitError):
        admission.admit([build_request("1234", max_tokens=96)], caller)
    clock.now_s += 0.2
    admission.admit([build_request("1234", max_tokens=96)], caller)


def test_a_request_larger_than_the_burst_waits_for_a_full_bucket(
    build_request: RequestBuilder, clock: SetClock
) -> None:
    """Otherwise it could never be admitted. The bucket's level becomes negative."""
    admission = Admission(max_waiting_requests=100, max_waiting_tokens=10_000, clock=clock)
    caller = Caller(name="a", limits=CallerLimits(tokens_per_s=10, burst_tokens=50))
    admission.admit([build_request("1234", max_tokens=96)], caller)

    with pytest.raises(RateLimitError) as refused:
        admission.admit([build_request("1234", max_tokens=96)], caller)
    assert refused.value.retry_after_s == pytest.approx(10.0)


@pytest.mark.parametrize(("has_started", "expected_wait_s"), [(False, 0.0), (True, 4.0)])
def test_unused_tokens_are_returned(
    build_request: RequestBuilder, clock: SetClock, has_started: bool, expected_wait_s: float
) -> None:
    """All tokens, if the request never started."""
    admission = Admission(max_waiting_requests=100, max_waiting_tokens=10_000, clock=clock)
    caller = Caller(name="a", limits=CallerLimits(tokens_per_s=10, burst_tokens=100))
    request = build_request("1234", max_tokens=96)
    admission.admit([request], caller)
    if has_started:
        admission.mark_started(request.request_id)
    admission.release(request.request_id, num_unused_tokens=60)

    following = build_request("1234", max_tokens=96)
    if expected_wait_s:
        with pytest.raises(RateLimitError) as refused:
            admission.admit([following], caller)
        assert refused.value.retry_after_s == pytest.approx(expected_wait_s)
    else:
        admission.admit([following], caller)


def test_a_continuation_is_charged_without_being_refused(build_request: RequestBuilder, clock: SetClock) -> None:
    admission = Admission(max_waiting_requests=100, max_waiting_tokens=10_000, clock=clock)
    caller = Caller(name="a", limits=CallerLimits(tokens_per_s=10, burst_tokens=100))
    for _ in range(30):
        admission.charge(build_request("1234", max_tokens=10), caller)

    with pytest.raises(RateLimitError) as refused:
        admission.admit([build_request("1234", max_tokens=96)], caller)
    assert refused.value.retry_after_s == pytest.approx(30.0)


def test_new_limits_apply_from_the_next_request(build_request: RequestBuilder) -> None:
    """A key's limits can change while the service runs. Its requests in flight stay counted."""
    admission = Admission(max_waiting_requests=100, max_waiting_tokens=10_000)
    admission.admit([build_request()], Caller(name="a", limits=CallerLimits(max_requests=1)))
    admission.admit([build_request()], Caller(name="a", limits=CallerLimits(max_requests=2)))
    with pytest.raises(RateLimitError):
        admission.admit([build_request()], Caller(name="a", limits=CallerLimits(max_requests=2)))


def test_idle_callers_with_full_buckets_are_forgotten(build_request: RequestBuilder, clock: SetClock) -> None:
    """Memory must not grow with the number of addresses. A caller is remembered until its bucket is full."""
    admission = Admission(max_waiting_requests=10, max_waiting_tokens=10_000, clock=clock)
    limits = CallerLimits(tokens_per_s=1000, burst_tokens=1000)
    for number in range(1000):
        request = build_request("1234", max_tokens=96)
        admission.admit([request], Caller(name=f"address {number}", limits=limits))
        admission.mark_started(request.request_id)
        admission.release(request.request_id)
        clock.now_s += 1.0

    assert len(admission._states) <= GC_THRESHOLD


@pytest.mark.reported("memory that grows with the callers that come")
def test_remembered_callers_are_bounded_and_the_emptiest_buckets_are_kept(
    build_request: RequestBuilder, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission_module, "MAX_DEBTORS", 100)
    admission = Admission(max_waiting_requests=10, max_waiting_tokens=10_000, clock=clock)
    limits = CallerLimits(tokens_per_s=0.001, burst_tokens=1000)
    large = Caller(name="large", limits=limits)
    for number in range(2000):
        caller = large if number == 0 else Caller(name=f"address {number}", limits=limits)
        request = build_request("1234", max_tokens=96 if number else 1096)
        admission.admit([request], caller)
        admission.mark_started(request.request_id)
        admission.release(request.request_id)
        assert len(admission._states) <= 200

    with pytest.raises(RateLimitError):
        admission.admit([build_request()], large)


def test_work_of_several_requests_stays_in_flight_between_them(build_request: RequestBuilder) -> None:
    """A search between two steps still counts: its caller can't start another one."""
    admission = Admission(max_waiting_requests=100, max_waiting_tokens=10_000)
    caller = Caller(name="a", limits=CallerLimits(max_requests=1))
    first = build_request()
    admission.admit([first], caller)
    with admission.count_in_flight(caller, 1):
        admission.release(first.request_id)
        with pytest.raises(RateLimitError):
            admission.admit([build_request()], caller)
    admission.admit([build_request()], caller)


@pytest.mark.reported("a request of several prompts shed others' waiting requests and was refused itself")
def test_requests_submitted_together_are_admitted_together_or_shed_none(build_request: RequestBuilder) -> None:
    admission = Admission(max_waiting_requests=6, max_waiting_tokens=10_000)
    greedy, modest = Caller(name="greedy"), Caller(name="modest")
    waiting = [build_request() for _ in range(6)]
    for request in waiting:
        admission.admit([request], greedy)

    with pytest.raises(OverloadedError, match="6 requests for"):
        admission.admit([build_request() for _ in range(4)], modest)
    assert admission.num_waiting_requests == 6

    shed = admission.admit([build_request() for _ in range(3)], modest)
    assert shed == [request.request_id for request in reversed(waiting[3:])]


def test_requests_submitted_together_all_count_against_the_callers_limits(
    build_request: RequestBuilder, clock: SetClock
) -> None:
    admission = Admission(max_waiting_requests=100, max_waiting_tokens=10_000, clock=clock)
    few = Caller(name="few", limits=CallerLimits(max_requests=3))
    admission.admit([build_request()], few)
    with pytest.raises(RateLimitError, match=r"1 requests in flight and ask for 3 more; your limit is 3"):
        admission.admit([build_request() for _ in range(3)], few)
    admission.admit([build_request() for _ in range(2)], few)

    slow = Caller(name="slow", limits=CallerLimits(tokens_per_s=10, burst_tokens=250))
    admission.admit([build_request("1234", max_tokens=96)], slow)
    with pytest.raises(RateLimitError, match="this request needs 200 prompt") as refused:
        admission.admit([build_request("1234", max_tokens=96) for _ in range(2)], slow)
    assert refused.value.retry_after_s == pytest.approx(5.0)


@pytest.mark.parametrize(("num_requests", "max_tokens"), [(5, 1), (2, 600)])
def test_more_requests_together_than_the_queue_holds_are_invalid(
    build_request: RequestBuilder, num_requests: int, max_tokens: int
) -> None:
    """Even an empty queue: retrying would not help."""
    admission = Admission(max_waiting_requests=4, max_waiting_tokens=1000)
    with pytest.raises(InvalidRequestError, match="the queue holds 4 prompts and 1000 tokens: send fewer"):
        admission.admit([build_request(max_tokens=max_tokens) for _ in range(num_requests)])
    assert admission.num_waiting_requests == 0
