"""What one HTTP request came to: filled by whoever learns it, logged and counted at the end."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from starlette.types import Scope

from distilgpt2_api.core.caller import ANONYMOUS, Caller
from distilgpt2_api.core.outputs import SequenceDelta

DISCONNECT = "disconnect"
ABORT_REASONS: Mapping[str, str] = {"deadline_exceeded": "deadline", "draining": "drain", "overloaded": "shed"}
"""What ended a request after its admission, by the code of the error that its client got."""
ABORT_ERROR = "error"
"""Every other code."""
ALL_ABORT_REASONS = (DISCONNECT, *ABORT_REASONS.values(), ABORT_ERROR)


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """Mutable; one request's task owns it. Never holds text of the prompt or of the completion."""

    request_id: str
    caller: Caller = ANONYMOUS
    """Whose share of the service it takes."""
    clock: Callable[[], float] = time.perf_counter
    started_s: float = 0.0
    admitted_s: float | None = None
    """When the engine took it; both on `clock`. None: never, or there is nothing to compute."""
    num_sequences: int = 0
    """That it was admitted for."""
    is_streamed: bool = False
    is_disconnect: bool = False
    """The client hung up before the end."""
    user_hash: str | None = None
    num_prompt_tokens: int | None = None
    num_cached_tokens: int = 0
    """Prompt tokens that came from the prefix cache; of several sequences of one prompt the first counts."""
    num_completion_tokens: int = 0
    finish_reasons: list[str] = field(default_factory=list)
    queue_s: float | None = None
    ttft_s: float | None = None
    error_code: str | None = None
    """Of the error that the client got, as a status or, after a 200, as an event."""

    def note_user(self, user: str | None) -> None:
        """Whom the caller says it asks for: kept as a hash, to tell users apart and know none."""
        if user:
            self.user_hash = hashlib.sha256(user.encode()).hexdigest()[:16]

    def admit(self, num_sequences: int) -> None:
        """The engine has taken the request, for so many sequences."""
        self.admitted_s = self.clock()
        self.num_sequences = num_sequences

    @property
    def abort_reason(self) -> str | None:
        """Why what was admitted did not end as asked; None: it did, or never was."""
        if self.admitted_s is None:
            return None
        if self.is_disconnect and len(self.finish_reasons) < self.num_sequences:
            return DISCONNECT
        return None if self.error_code is None else ABORT_REASONS.get(self.error_code, ABORT_ERROR)

    def note(self, delta: SequenceDelta) -> None:
        """Take what a sequence's last delta tells."""
        timings = delta.timings
        assert delta.finish_reason is not None
        assert timings is not None
        self.finish_reasons.append(delta.finish_reason.value)
        self.num_completion_tokens += delta.num_completion_tokens
        if delta.index == 0:
            self.num_cached_tokens += delta.num_cached_tokens
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
            fields["cached_tokens"] = self.num_cached_tokens
            fields["stream"] = self.is_streamed
            fields["finish_reason"] = ",".join(sorted(set(self.finish_reasons))) or None
        if self.queue_s is not None:
            fields["queue_ms"] = round(self.queue_s * 1000, 1)
        if self.ttft_s is not None:
            fields["ttft_ms"] = round(self.ttft_s * 1000, 1)
        if self.user_hash is not None:
            fields["user_hash"] = self.user_hash
        if self.error_code is not None:
            fields["error_code"] = self.error_code
        if self.abort_reason is not None:
            fields["abort_reason"] = self.abort_reason
        if self.is_disconnect:
            fields["is_disconnect"] = True
        return fields


def note_error(scope: Scope, code: str) -> None:
    """The request is answered with an error of this code. Outside the middleware nobody takes note."""
    record = scope.get("state", {}).get("record")
    if isinstance(record, RequestRecord):
        record.error_code = code


def has_record(scope: Scope) -> bool:
    """Whether somebody has laid one into the scope: inside of the process, for no server does."""
    return "record" in scope.get("state", {})


def record_of(scope: Scope) -> RequestRecord:
    """The record that the middleware laid into the scope."""
    record = scope["state"]["record"]
    assert isinstance(record, RequestRecord)
    return record
