"""The service ends when it is asked to, in the five seconds that Azure gives, and tells those who still listen."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.container.engines import Engine, Options
from tests.container.http import stream

STOP_S = 5
LONG = {"max_tokens": 400, "ignore_eos": True, "temperature": 1.0, "seed": 3}


def test_stopped_in_mid_stream_it_ends_well_and_says_so(engine: Engine, image: str) -> None:
    """Acceptance 3: exit status 0; the stream's last event is an error object or has a finish reason."""
    with (
        # Too long for the drain: what is still running then gets the error event.
        engine.running(
            image, Options(environment={"DISTILGPT2_DRAIN_S": "1", "DISTILGPT2_NUM_THREADS": "1"})
        ) as service,
        ThreadPoolExecutor() as pool,
    ):
        service.wait_until_ready()
        streams = [stream(service.port, **LONG, n=8) for _ in range(4)]
        for events in streams:
            assert next(events)["choices"]
        stopped = pool.submit(service.stop, STOP_S)
        last_events = list(pool.map(last_event, streams))
        assert stopped.result() == 0, service.log()
    for event in last_events:
        assert "error" in event or event["choices"][0]["finish_reason"], event


def last_event(events: object) -> dict[str, list[dict[str, str]]]:
    """The last that isn't `[DONE]`."""
    assert hasattr(events, "__iter__")
    last: dict[str, list[dict[str, str]]] = {}
    for event in events:
        if event != "done":
            last = event
    return last


def test_stopped_while_idle_it_ends_at_once(engine: Engine, image: str) -> None:
    with engine.running(image) as service:
        service.wait_until_ready()
        assert service.stop(STOP_S) == 0, service.log()
