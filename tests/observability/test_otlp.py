"""Traces as a collector receives them: OTLP over HTTP, configured by OpenTelemetry's own variables."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from distilgpt2_api.core.outputs import RequestTimings
from distilgpt2_api.observability.otlp import collector_traces
from distilgpt2_api.observability.request_record import RequestRecord

REQUEST = RequestRecord(
    request_id="id-1",
    method="GET",
    route="/{prompt}",
    status=200,
    duration_s=1.0,
    admitted_s=0.0,
    timings=RequestTimings(queue_s=0.1, prefill_s=0.1, decode_s=0.5),
    num_prompt_tokens=7,
    num_completion_tokens=5,
    finish_reasons=["stop"],
)


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, ExportTraceServiceRequest]]]:
    """Path and body of each request to a collector on loopback, to which the environment points."""
    bodies: list[tuple[str, ExportTraceServiceRequest]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            bodies.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield bodies
        server.shutdown()
        thread.join()


def test_spans_arrive_with_the_name_of_the_service(
    received: list[tuple[str, ExportTraceServiceRequest]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    traces = collector_traces(version="1.2", model="tiny")
    traces.add(REQUEST)
    asyncio.run(traces.close(10.0))
    [(path, body)] = received
    assert path == "/v1/traces"
    [resource_spans] = body.resource_spans
    resource = {attribute.key: attribute.value.string_value for attribute in resource_spans.resource.attributes}
    assert resource["service.name"] == "distilgpt2-api"
    assert resource["service.version"] == "1.2"
    assert resource["deployment.environment.name"] == "test"
    spans = [span for scope in resource_spans.scope_spans for span in scope.spans]
    assert sorted(span.name for span in spans) == ["GET /{prompt}", "generate", "queue"]


def test_the_environment_sets_the_services_name(
    received: list[tuple[str, ExportTraceServiceRequest]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "stories")
    traces = collector_traces(version="1", model="tiny")
    traces.add(REQUEST)
    asyncio.run(traces.close(10.0))
    names = [
        attribute.value.string_value
        for attribute in received[0][1].resource_spans[0].resource.attributes
        if attribute.key == "service.name"
    ]
    assert names == ["stories"]


@pytest.mark.parametrize("is_listening", [True, False], ids=["hangs", "away"])
def test_a_collector_that_fails_costs_only_spans(monkeypatch: pytest.MonkeyPatch, is_listening: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if not is_listening:
            listener.close()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")  # what is left of the thread ends soon after
        traces = collector_traces(version="1", model="tiny")
        begun_s = time.monotonic()
        for _ in range(3000):  # more than its queue holds
            traces.add(REQUEST)
        asyncio.run(traces.close(0.05))
        assert time.monotonic() - begun_s < 10
