"""A span for each request, which continues the client's trace. Needs only OpenTelemetry's API, a FastAPI dependency.

A request's spans are created when it ends, from recorded times, so they cost nothing while it runs. Attributes follow
OpenTelemetry's conventions for HTTP servers and for generative AI. They contain no text, and no path, which can be a
prompt.
"""

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterable

from opentelemetry.context import Context
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    TracerProvider,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from distilgpt2_api.observability.http_metrics import METHODS
from distilgpt2_api.observability.request_record import RequestRecord

TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C's version 00. A client's trace of another version, which may be longer, is not continued."""
MAX_TRACESTATE_BYTES = 512
FLUSH_S = 1.0
"""Time to send the last spans at shutdown, which an unresponsive collector must not delay."""
PROVIDER = "distilgpt2-api"


class Traces:
    """Creates spans of finished requests with a provider."""

    def __init__(
        self,
        provider: TracerProvider,
        *,
        version: str,
        model: str,
        shut_down: Callable[[], object] = lambda: None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`shut_down` sends the remaining spans; it may block. `clock_ns` is Unix time in nanoseconds."""
        self._tracer = provider.get_tracer("distilgpt2_api", version)
        self._model = model
        self._shut_down = shut_down
        self._clock_ns = clock_ns
        self._propagator = TraceContextTextMapPropagator()

    def add(self, request: RequestRecord) -> str:
        """Create the spans of a request that ends now. Returns its trace id, for the log line."""
        end_ns = self._clock_ns()
        start_ns = end_ns - _ns(request.duration_s)
        span = self._tracer.start_span(
            f"{request.method} {request.route}" if request.method in METHODS else request.route,
            context=self._parent(request.headers),
            kind=SpanKind.SERVER,
            attributes=self._attributes(request),
            start_time=start_ns,
        )
        if request.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        if request.admitted_s is not None and span.is_recording():
            self._add_phases(span, request, start_ns + _ns(request.admitted_s - request.started_s), end_ns)
        span.end(end_ns)
        return format_trace_id(span.get_span_context().trace_id)

    async def close(self, timeout_s: float = FLUSH_S) -> None:
        """Send the last spans, within `timeout_s`."""
        # A daemon thread does not delay the exit of the process.
        thread = threading.Thread(target=self._shut_down, name="last-spans", daemon=True)
        thread.start()
        await asyncio.to_thread(thread.join, timeout_s)

    def _add_phases(self, parent: Span, request: RequestRecord, admitted_ns: int, end_ns: int) -> None:
        """Add spans for the queue and for the generation, with its first token."""
        context = set_span_in_context(parent)
        timings = request.timings
        started_ns = end_ns if timings is None else min(end_ns, admitted_ns + _ns(timings.queue_s))
        self._tracer.start_span("queue", context=context, start_time=admitted_ns).end(started_ns)
        if timings is None:
            return
        generation = self._tracer.start_span("generate", context=context, start_time=started_ns)
        if timings.ttft_s is not None:
            generation.add_event("first token", timestamp=min(end_ns, admitted_ns + _ns(timings.ttft_s)))
        generation.end(end_ns)

    def _parent(self, headers: Iterable[tuple[bytes, bytes]]) -> Context:
        """The client's span, if it sent a well-formed one."""
        carrier: dict[str, list[str]] = {"traceparent": [], "tracestate": []}
        for name, value in headers:
            if name in (b"traceparent", b"tracestate"):
                carrier[name.decode()].append(value.decode("latin-1"))
        match carrier["traceparent"]:
            case [only] if TRACEPARENT.fullmatch(only):
                if sum(map(len, carrier["tracestate"])) > MAX_TRACESTATE_BYTES:
                    carrier["tracestate"] = []
                return self._propagator.extract(carrier, Context())
        return Context()

    def _attributes(self, request: RequestRecord) -> dict[str, AttributeValue]:
        attributes: dict[str, AttributeValue] = {
            "http.request.method": request.method if request.method in METHODS else "_OTHER",
            "http.route": request.route,
            "http.response.status_code": request.status,
            "distilgpt2.request_id": request.request_id,
        }
        if request.status >= 500 or request.error_code is not None:
            attributes["error.type"] = request.error_code or str(request.status)
        if request.abort_reason is not None:
            attributes["distilgpt2.abort_reason"] = request.abort_reason
        if request.num_prompt_tokens is None:
            return attributes
        attributes |= {
            "gen_ai.operation.name": request.operation,
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.request.model": self._model,
            "gen_ai.request.stream": request.is_streamed,
            "gen_ai.response.model": self._model,
            "gen_ai.response.finish_reasons": tuple(request.finish_reasons),
            "gen_ai.usage.input_tokens": request.num_prompt_tokens,
            "gen_ai.usage.cache_read.input_tokens": request.num_cached_tokens,
            "gen_ai.usage.output_tokens": request.num_completion_tokens,
        }
        if request.timings is not None:
            attributes["distilgpt2.queue_time_s"] = request.timings.queue_s
            if request.timings.ttft_s is not None:
                attributes["gen_ai.server.time_to_first_token"] = request.timings.ttft_s
        return attributes


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
