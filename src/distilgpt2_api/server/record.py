"""What one HTTP request came to: filled by whoever learns it, logged and counted at the end."""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.types import Scope

from distilgpt2_api.core.caller import ANYBODY, Caller
from distilgpt2_api.core.outputs import SequenceDelta


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """Mutable; one request's task owns it. Never holds text of the prompt or of the completion."""

    request_id: str
    caller: Caller = ANYBODY
    """Whose share of the service it takes."""
    is_disconnect: bool = False
    """The client hung up before the end."""
    user_hash: str | None = None
    num_prompt_tokens: int | None = None
    num_completion_tokens: int = 0
    finish_reasons: list[str] = field(default_factory=list)
    queue_s: float | None = None
    ttft_s: float | None = None
    error_code: str | None = None
    """Of an error event, after a 200."""

    def note(self, delta: SequenceDelta) -> None:
        """Take what a sequence's last delta tells."""
        timings = delta.timings
        if delta.finish_reason is None or timings is None:
            return
        self.finish_reasons.append(delta.finish_reason.value)
        self.num_completion_tokens += delta.num_completion_tokens
        self.queue_s = timings.queue_s if self.queue_s is None else min(self.queue_s, timings.queue_s)
        if timings.ttft_s is not None:
            self.ttft_s = timings.ttft_s if self.ttft_s is None else min(self.ttft_s, timings.ttft_s)

    def log_fields(self) -> dict[str, object]:
        """What is known, for the log line; times in milliseconds."""
        fields: dict[str, object] = {}
        if self.caller.is_key:
            fields["key"] = self.caller.name
        if self.num_prompt_tokens is not None:
            fields["prompt_tokens"] = self.num_prompt_tokens
            fields["completion_tokens"] = self.num_completion_tokens
            fields["finish_reason"] = ",".join(sorted(set(self.finish_reasons))) or None
        if self.queue_s is not None:
            fields["queue_ms"] = round(self.queue_s * 1000, 1)
        if self.ttft_s is not None:
            fields["ttft_ms"] = round(self.ttft_s * 1000, 1)
        if self.user_hash is not None:
            fields["user_hash"] = self.user_hash
        if self.error_code is not None:
            fields["error_code"] = self.error_code
        if self.is_disconnect:
            fields["is_disconnect"] = True
        return fields


def record_of(scope: Scope) -> RequestRecord:
    """The record that the middleware laid into the scope."""
    record = scope["state"]["record"]
    assert isinstance(record, RequestRecord)
    return record
