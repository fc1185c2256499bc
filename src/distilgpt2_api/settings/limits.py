"""Settings that bound what one request, one caller and all of them together may take."""

from __future__ import annotations

from pydantic import BaseModel, ByteSize, Field

from distilgpt2_api.core.caller import CallerLimits
from distilgpt2_api.settings.automatic import AutoInt


class LimitSettings(BaseModel):
    """Part of `Settings`."""

    max_waiting_requests: int = Field(
        default=1024, ge=1, le=1_000_000, description="Requests that wait; one more is refused with 429."
    )
    max_waiting_tokens: int = Field(
        default=1_048_576,
        ge=1,
        le=1_000_000_000,
        description="Prompt and completion tokens of the waiting requests; one more request is refused with 429.",
    )
    key_max_requests: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Requests that one API key may have in flight, waiting and running: each prompt is one. One more "
        "is refused with 429. A key's own entry in the file of keys goes first. Without keys this holds for each "
        "client address. Unset: no such limit.",
    )
    key_tokens_per_s: float | None = Field(
        default=None,
        gt=0,
        le=1_000_000_000,
        description="Prompt and completion tokens per second that one API key (or address, as above) may use over "
        "time; past its burst it is refused with 429. Unset: no such limit.",
    )
    key_burst_tokens: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000_000,
        description="Tokens that one API key (or address) may use at once before `key_tokens_per_s` holds it back. "
        "Unset: a minute's worth.",
    )
    max_body_bytes: ByteSize = Field(
        default=ByteSize(2 << 20),
        ge=1024,
        le=1 << 30,
        description="Size of a request's body; a larger one is refused with 413.",
    )
    max_uploads_bytes: ByteSize = Field(
        default=ByteSize(64 << 20),
        ge=1024,
        le=1 << 40,
        description="Size of all bodies that are on their way, together; what goes beyond it is refused with 429.",
    )
    max_n: int = Field(default=16, ge=1, le=128, description="Completions of one prompt (`n`, `num_return_sequences`).")
    max_logprobs: int = Field(default=20, ge=0, le=100, description="Likeliest tokens listed beside the one drawn.")
    max_stop_sequences: int = Field(default=16, ge=1, le=1024, description="Stop sequences of one request.")
    timeout_s: float = Field(
        default=600.0, gt=0, le=86400, description="Time a request may take, queue included; then it is aborted."
    )
    step_timeout_s: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="Time that one step of the engine, or taking in one request, may take. If one takes longer, the "
        "engine hangs: `/livez` says so, its requests fail, and the process ends for its supervisor to start it again.",
    )
    header_timeout_s: float = Field(
        default=10.0,
        gt=0,
        le=3600,
        description="Time in which a request's head must arrive, from the opening of the connection or its first byte; "
        "then the connection is closed.",
    )
    body_timeout_s: float = Field(
        default=30.0, gt=0, le=3600, description="Time in which a request's body must arrive; then it is 408."
    )
    write_timeout_s: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="Time for which an answer may wait for a client to read; then the connection is cut, and the work "
        "for it ends. Until then what it does not read is kept, 64 KiB of it.",
    )
    max_header_bytes: ByteSize = Field(
        default=ByteSize(32 << 10), ge=1024, le=1 << 20, description="Size of a request's head; a larger one gets 431."
    )
    max_connections: AutoInt = Field(
        default=None,
        ge=16,
        le=1_000_000,
        description="Open connections; past it the one that has been idle longest is closed for a new one. `auto`: "
        "16384, or what the limits on memory and open files leave.",
    )
    drain_s: float = Field(
        default=4.0,
        ge=0,
        le=600,
        description="Time running requests get to finish after SIGTERM. Below the platform's own limit (Azure: 5 s).",
    )

    def caller_limits(self) -> CallerLimits:
        """What each caller may have that has no limits of its own."""
        return CallerLimits(
            max_requests=self.key_max_requests,
            tokens_per_s=self.key_tokens_per_s,
            burst_tokens=self.key_burst_tokens,
        )
