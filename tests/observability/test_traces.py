"""Spans of finished requests: their content, the traces that they continue, and what they never contain."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from distilgpt2_api.core.outputs import RequestTimings
from distilgpt2_api.observability.request_record import RequestRecord
from distilgpt2_api.observability.traces import Traces

NOW_NS = 1_700_000_000_000_000_000
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


def own_records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Records of this thread. An exporter of another test may still log on its own."""
    return [record for record in caplog.records if record.thread == threading.get_ident()]


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traces(exporter: InMemorySpanExporter) -> Traces:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Traces(provider, version="1", model="tiny", clock_ns=lambda: NOW_NS)


def served(*headers: tuple[str, str], **options: Any) -> RequestRecord:
    defaults: dict[str, Any] = {
        "request_id": "id-1",
        "method": "POST",
        "route": "/v1/completions",
        "operation": "text_completion",
        "status": 200,
        "headers": [(name.encode(), value.encode()) for name, value in headers],
        "duration_s": 2.0,
        "started_s": 10.0,
        "admitted_s": 10.25,
        "num_sequences": 1,
        "timings": RequestTimings(queue_s=0.5, prefill_s=0.25, decode_s=1.0),
        "num_prompt_tokens": 7,
        "num_cached_tokens": 3,
        "num_completion_tokens": 5,
        "finish_reasons": ["length"],
        "is_streamed": True,
    }
    return RequestRecord(**(defaults | options))


def after_start_s(time_ns: int | None) -> float:
    assert time_ns is not None
    return (time_ns - NOW_NS) / 1e9 + 2.0


def server_span(exporter: InMemorySpanExporter) -> ReadableSpan:
    return next(span for span in exporter.get_finished_spans() if span.kind is SpanKind.SERVER)


def test_a_request_is_a_span_with_its_phases_as_children(traces: Traces, exporter: InMemorySpanExporter) -> None:
    trace_id = traces.add(served())
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert {name: (after_start_s(span.start_time), after_start_s(span.end_time)) for name, span in spans.items()} == {
        "POST /v1/completions": (0.0, 2.0),
        "queue": (0.25, 0.75),
        "generate": (0.75, 2.0),
    }
    server = spans["POST /v1/completions"]
    assert server.context is not None
    assert f"{server.context.trace_id:032x}" == trace_id
    for name in ("queue", "generate"):
        parent = spans[name].parent
        assert parent is not None
        assert parent.span_id == server.context.span_id
    [event] = spans["generate"].events
    assert (event.name, after_start_s(event.timestamp)) == ("first token", 1.0)


def test_attributes_follow_the_conventions(traces: Traces, exporter: InMemorySpanExporter) -> None:
    traces.add(served())
    assert dict(server_span(exporter).attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/v1/completions",
        "http.response.status_code": 200,
        "distilgpt2.request_id": "id-1",
        "distilgpt2.queue_time_s": 0.5,
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "distilgpt2-api",
        "gen_ai.request.model": "tiny",
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "tiny",
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.server.time_to_first_token": 0.75,
    }


def test_a_well_formed_traceparent_is_continued(traces: Traces, exporter: InMemorySpanExporter) -> None:
    assert traces.add(served(("traceparent", PARENT), ("tracestate", "vendor=1"))) == TRACE_ID
    span = server_span(exporter)
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == SPAN_ID
    assert span.parent.trace_state.to_header() == "vendor=1"


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", "")],
        [("traceparent", PARENT[:-1])],
        [("traceparent", PARENT.upper())],
        [("traceparent", f"00-{'0' * 32}-{SPAN_ID}-01")],
        [("traceparent", f"00-{TRACE_ID}-{'0' * 16}-01")],
        [("traceparent", f"ff{PARENT[2:]}")],
        [("traceparent", PARENT + "x" * 100_000)],
        [("traceparent", PARENT), ("traceparent", PARENT)],
        [("tracestate", "vendor=1")],
    ],
    ids=["empty", "short", "capitals", "no trace", "no span", "version", "long", "two", "state alone"],
)
def test_any_other_traceparent_starts_a_new_trace_and_logs_nothing(
    traces: Traces, exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture, headers: list[tuple[str, str]]
) -> None:
    """Clients must not be able to fill the log."""
    assert traces.add(served(*headers)) != TRACE_ID
    assert server_span(exporter).parent is None
    assert not own_records(caplog)


def test_a_long_tracestate_is_left_out(
    traces: Traces, exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    assert traces.add(served(("traceparent", PARENT), ("tracestate", "vendor=" + "1" * 600))) == TRACE_ID
    parent = server_span(exporter).parent
    assert parent is not None
    assert parent.trace_state.to_header() == ""
    assert not own_records(caplog)


def test_a_client_that_does_not_sample_gets_no_spans(traces: Traces, exporter: InMemorySpanExporter) -> None:
    assert traces.add(served(("traceparent", PARENT[:-1] + "0"))) == TRACE_ID
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize(
    ("options", "is_error", "error_type"),
    [
        ({"status": 500, "error_code": "internal_error"}, True, "internal_error"),
        ({"status": 504, "error_code": None}, True, "504"),
        ({"status": 429, "error_code": "overloaded"}, False, "overloaded"),
        ({}, False, None),
    ],
)
def test_only_server_errors_are_errors_of_the_span(
    traces: Traces, exporter: InMemorySpanExporter, options: dict[str, Any], is_error: bool, error_type: str | None
) -> None:
    traces.add(served(**options))
    span = server_span(exporter)
    assert (span.status.status_code is StatusCode.ERROR) is is_error
    assert (span.attributes or {}).get("error.type") == error_type


def test_a_request_that_never_left_the_queue_has_no_generate_span(
    traces: Traces, exporter: InMemorySpanExporter
) -> None:
    traces.add(served(timings=None, is_disconnect=True, finish_reasons=[], status=499))
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert spans.keys() == {"POST /v1/completions", "queue"}
    assert after_start_s(spans["queue"].end_time) == 2.0
    assert (server_span(exporter).attributes or {})["distilgpt2.abort_reason"] == "disconnect"


def test_a_request_without_tokens_has_no_token_attributes(traces: Traces, exporter: InMemorySpanExporter) -> None:
    traces.add(served(route="/v1/models", method="BREW", num_prompt_tokens=None, admitted_s=None))
    [span] = exporter.get_finished_spans()
    assert span.name == "/v1/models"
    assert (span.attributes or {})["http.request.method"] == "_OTHER"
    assert not [name for name in span.attributes or {} if name.startswith("gen_ai")]


def test_an_unresponsive_collector_does_not_delay_shutdown(exporter: InMemorySpanExporter) -> None:
    is_over = threading.Event()
    traces = Traces(TracerProvider(shutdown_on_exit=False), version="1", model="tiny", shut_down=is_over.wait)
    begun_s = time.monotonic()
    asyncio.run(traces.close(0.01))
    assert time.monotonic() - begun_s < 5
    is_over.set()
