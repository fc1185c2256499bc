"""Requests become spans without text. Probes are not traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from distilgpt2_api.observability.traces import Traces


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def client(open_client: Callable[..., Any], exporter: InMemorySpanExporter) -> Any:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return open_client(traces=Traces(provider, version="1", model="tiny", shut_down=provider.shutdown))


def test_a_completion_is_a_trace_whose_id_is_in_the_log(client: Any, exporter: InMemorySpanExporter) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    client.post("/v1/completions", json={"prompt": "once", "max_tokens": 3}, headers=headers)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert spans.keys() == {"POST /v1/completions", "queue", "generate"}
    assert {f"{span.context.trace_id:032x}" for span in spans.values() if span.context} == {trace_id}
    assert client.scene.log.calls[-1].kwargs["trace_id"] == trace_id
    server = spans["POST /v1/completions"]
    attributes = server.attributes or {}
    assert (attributes["gen_ai.usage.input_tokens"], attributes["gen_ai.usage.output_tokens"]) == (4, 3)
    times = [(span.start_time or 0, span.end_time or 0) for span in (server, spans["queue"], spans["generate"])]
    (begin, end), *phases = times
    assert all(begin <= phase_begin <= phase_end <= end for phase_begin, phase_end in phases)


def test_neither_path_nor_prompt_is_in_a_span(client: Any, exporter: InMemorySpanExporter) -> None:
    client.get("/my%20secret%20prompt?max_new_tokens=3")
    client.complete(prompt="secret", stop="secret", user="secret")
    client.get("/v1/secret")
    shown = [span.to_json() for span in exporter.get_finished_spans()]
    assert len(shown) == 7
    assert not [text for text in shown if "secret" in text]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_probes_and_scrapes_are_not_traced(client: Any, exporter: InMemorySpanExporter, path: str) -> None:
    client.get(path)
    assert exporter.get_finished_spans() == ()


def test_without_tracing_the_log_has_no_trace_id(open_client: Callable[..., Any]) -> None:
    client = open_client()
    client.complete(prompt="once", max_tokens=1)
    assert "trace_id" not in client.scene.log.calls[-1].kwargs
