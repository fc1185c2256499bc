"""The limits of a request and of a connection, from the settings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """What a request may ask at most."""

    max_body_bytes: int
    max_uploads_bytes: int
    """Of all bodies that are on their way, together."""
    body_timeout_s: float
    max_prompts: int
    max_n: int
    max_logprobs: int
    max_stop_sequences: int
    timeout_s: float

    def deadline_s(self, asked_s: float | None) -> float:
        """For a request that asks for so many seconds; None: it does not ask."""
        return self.timeout_s if asked_s is None else min(asked_s, self.timeout_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """The settings of the same names; times in seconds."""

    header_timeout_s: float
    max_header_bytes: int
    write_timeout_s: float
    max_connections: int
