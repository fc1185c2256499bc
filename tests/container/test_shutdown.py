"""On a stop the service exits within Azure's five seconds, and ends its streams properly."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.container.engines import Engine, Options
from tests.container.http import stream

STOP_S = 5
LONG = {"max_tokens": 400, "ignore_eos": True, "temperature": 1.0, "seed": 3}


def test_a_stop_during_streams_ends_them_properly(engine: Engine, each_image: str) -> None:
    """Acceptance 3: exit status 0; the stream's last event is an error object or has a finish reason."""
    engine.load(each_image)
    with (
        # Too long for the drain: streams that still run then get the error event.
        engine.running(
            each_image, Options(environment={"DISTILGPT2_DRAIN_S": "1", "DISTILGPT2_NUM_THREADS": "1"})
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
    """The last event except `[DONE]`."""
    assert hasattr(events, "__iter__")
    last: dict[str, list[dict[str, str]]] = {}
    for event in events:
        if event != "done":
            last = event
    return last


def test_a_stop_while_idle_ends_at_once(engine: Engine, each_image: str) -> None:
    engine.load(each_image)
    with engine.running(each_image) as service:
        service.wait_until_ready()
        assert service.stop(STOP_S) == 0, service.log()
