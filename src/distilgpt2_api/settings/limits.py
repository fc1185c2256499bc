"""Settings that bound what one request, one caller and all of them together may take."""

from __future__ import annotations

from pydantic import BaseModel, ByteSize, Field


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
    max_body_bytes: ByteSize = Field(
        default=ByteSize(2 << 20),
        ge=1024,
        le=1 << 30,
        description="Size of a request's body; a larger one is refused with 413.",
    )
    max_n: int = Field(default=16, ge=1, le=128, description="Completions of one prompt (`n`, `num_return_sequences`).")
    max_logprobs: int = Field(default=20, ge=0, le=100, description="Likeliest tokens listed beside the one drawn.")
    max_stop_sequences: int = Field(default=16, ge=1, le=1024, description="Stop sequences of one request.")
    timeout_s: float = Field(
        default=600.0, gt=0, le=86400, description="Time a request may take, queue included; then it is aborted."
    )
    drain_s: float = Field(
        default=4.0,
        ge=0,
        le=600,
        description="Time running requests get to finish after SIGTERM. Below the platform's own limit (Azure: 5 s).",
    )
