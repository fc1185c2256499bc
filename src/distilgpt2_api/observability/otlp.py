"""Traces to a collector, by OTLP over HTTP. Needs the extra `otel`: whoever does not want traces does not import this.

Where to, which part of all requests, with what headers and under which name is told by OpenTelemetry's own variables:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from distilgpt2_api.observability.traces import PROVIDER, Traces


def collector_traces(*, version: str, model: str) -> Traces:
    """Spans leave in batches, on a thread of their own; a collector that is away or slow costs spans, nothing else."""
    ours = Resource.create({"service.name": PROVIDER, "service.version": version})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traces(provider, version=version, model=model, shut_down=provider.shutdown)
