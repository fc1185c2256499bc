"""Sends traces to a collector by OTLP over HTTP. Needs the extra `otel`, and is imported only with traces on.

OpenTelemetry's own variables set the collector, the sampler, headers and the service's name:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from distilgpt2_api.observability.traces import PROVIDER, Traces


def collector_traces(*, version: str, model: str) -> Traces:
    """Sends spans in batches on its own thread. An unavailable or slow collector costs only spans."""
    ours = Resource.create({"service.name": PROVIDER, "service.version": version})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traces(provider, version=version, model=model, shut_down=provider.shutdown)
