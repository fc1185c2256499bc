"""The limits of a request and of a connection, from the settings."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """The most that one request may use."""

    max_body_bytes: int
    max_uploads_bytes: int
    """Limit of all bodies together that are being received."""
    body_timeout_s: float
    max_prompts: int
    max_n: int
    max_logprobs: int
    max_stop_sequences: int
    timeout_s: float

    def deadline_s(self, requested_s: float | None) -> float:
        """The deadline of a request, in seconds. `requested_s`: its own `timeout_s`."""
        return self.timeout_s if requested_s is None else min(requested_s, self.timeout_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """The settings of the same names; times in seconds."""

    header_timeout_s: float
    max_header_bytes: int
    write_timeout_s: float
    max_connections: int
