"""Limits for one request, for one caller, and for all callers together."""

from typing import Annotated

from pydantic import BaseModel, ByteSize, Field

from distilgpt2_api.core.caller import CallerLimits
from distilgpt2_api.settings.markers import AutoInt

Timeout = Annotated[float, Field(gt=0, le=3600)]


class LimitSettings(BaseModel, defer_build=True):
    """Part of `Settings`, whose validator alone is built."""

    max_waiting_requests: int = Field(
        default=1024, ge=1, le=1_000_000, description="Maximum number of waiting requests; further ones get 429."
    )
    max_waiting_tokens: int = Field(
        default=1_048_576,
        ge=1,
        le=1_000_000_000,
        description="Maximum number of prompt and completion tokens of all waiting requests; further ones get 429.",
    )
    key_max_requests: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Maximum number of requests in flight, waiting or running, for each API key; each prompt counts as "
        "one. Further ones get 429. A key's own entry in the key file overrides this. Without keys the "
        "limit applies to each client address. Unset: no limit.",
    )
    key_tokens_per_s: float | None = Field(
        default=None,
        gt=0,
        le=1_000_000_000,
        description="Prompt and completion tokens per second that one API key (or address, as above) may use on "
        "average. If it has also used its burst, its requests are refused with 429. Unset: no limit.",
    )
    key_burst_tokens: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000_000,
        description="Tokens that one API key (or address) may use at once before `key_tokens_per_s` applies. "
        "A larger request is admitted once the whole burst is available; its surplus delays the next requests. "
        "Unset: 60 seconds of `key_tokens_per_s`.",
    )
    key_tokens_per_day: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000_000_000,
        description="Budget of each API key: prompt and completion tokens in a day, in UTC. A request that may exceed "
        "it is refused with 429 until the next day begins. A key's own entry in the key file overrides this. Unset: no "
        "budget.",
    )
    key_tokens_per_month: int | None = Field(
        default=None, ge=1, le=1_000_000_000_000, description="The same for a calendar month."
    )
    max_body_bytes: ByteSize = Field(
        default=ByteSize(2 << 20),
        ge=1024,
        le=1 << 30,
        description="Maximum size of a request body; larger ones get 413.",
    )
    max_uploads_bytes: ByteSize = Field(
        default=ByteSize(64 << 20),
        ge=1024,
        le=1 << 40,
        description="Maximum size of all request bodies being received at once; further ones get 429.",
    )
    max_n: int = Field(
        default=16, ge=1, le=128, description="Maximum number of completions per prompt (`n`, `num_return_sequences`)."
    )
    max_logprobs: int = Field(
        default=20, ge=0, le=100, description="Maximum number of top tokens listed beside each sampled token."
    )
    max_stop_sequences: int = Field(
        default=16, ge=1, le=1024, description="Maximum number of stop sequences per request."
    )
    timeout_s: float = Field(
        default=600.0,
        gt=0,
        le=86400,
        description="Maximum time of a request, including queue time; then it is aborted.",
    )
    step_timeout_s: Timeout = Field(
        default=60.0,
        description="Maximum time of one engine step, or of adding one request. After it the engine counts as "
        "hung: `/livez` returns 503, requests in flight fail, and the process exits so that it is restarted.",
    )
    header_timeout_s: Timeout = Field(
        default=10.0,
        description="Time for a request's head to arrive, counted from the opening of the connection or from the "
        "head's first byte; then the connection is closed.",
    )
    body_timeout_s: Timeout = Field(
        default=30.0, description="Time for a request's body to arrive; then the answer is 408."
    )
    write_timeout_s: Timeout = Field(
        default=30.0,
        description="Maximum time that a response waits for its client to read; then the connection is closed and the "
        "work for it is aborted. Until then up to 64 KiB of unread response are buffered.",
    )
    max_header_bytes: ByteSize = Field(
        default=ByteSize(32 << 10),
        ge=1024,
        le=1 << 20,
        description="Maximum size of a request head; larger ones get 431.",
    )
    max_connections: AutoInt = Field(
        default=None,
        ge=16,
        le=1_000_000,
        description="Maximum number of open connections; beyond it the one that has been idle longest is closed for a "
        "new one. `auto`: 16384, or less if the limits on memory or open files require it.",
    )
    drain_s: float = Field(
        default=4.0,
        ge=0,
        le=600,
        description="Time that running requests have after SIGTERM. Keep it below the platform's limit (Azure: 5 s).",
    )

    def caller_limits(self) -> CallerLimits:
        """The limits of a caller without limits of its own."""
        return CallerLimits(
            max_requests=self.key_max_requests,
            tokens_per_s=self.key_tokens_per_s,
            burst_tokens=self.key_burst_tokens,
            tokens_per_day=self.key_tokens_per_day,
            tokens_per_month=self.key_tokens_per_month,
        )
