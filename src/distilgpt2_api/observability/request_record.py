"""The record of one HTTP request: filled while it is served, then logged, counted and traced."""

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from distilgpt2_api.core.caller import ANONYMOUS, Caller
from distilgpt2_api.core.outputs import RequestTimings, SequenceDelta
from distilgpt2_api.core.usage import Account, Usage

DISCONNECT = "disconnect"
ABORT_REASONS: Mapping[str, str] = {"deadline_exceeded": "deadline", "draining": "drain", "overloaded": "shed"}
"""Why a request was aborted after its admission, by the code of the error that the client got."""
ABORT_ERROR = "error"
"""The reason for every other code."""
ALL_ABORT_REASONS = (DISCONNECT, *ABORT_REASONS.values(), ABORT_ERROR)


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """Mutable; one request's task owns it. Never holds text of the prompt or the completion."""

    request_id: str
    method: str = ""
    headers: Iterable[tuple[bytes, bytes]] = ()
    """The request's, as in ASGI."""
    route: str = ""
    """The route's template, never the path, which can be a prompt."""
    operation: str = "text_completion"
    """`gen_ai.operation.name`."""
    status: int = 0
    duration_s: float = 0.0
    caller: Caller = ANONYMOUS
    """The caller whose limits and share apply."""
    account: Account | None = None
    """The account of the caller's key. None: there are no keys, or the request needs none."""
    clock: Callable[[], float] = time.perf_counter
    started_s: float = 0.0
    admitted_s: float | None = None
    """When the engine admitted the request. None: it did not, or there was nothing to compute. Both are on `clock`."""
    num_sequences: int = 0
    """Sequences that the engine admitted."""
    is_streamed: bool = False
    is_disconnect: bool = False
    """The client disconnected before the end."""
    user_hash: str | None = None
    num_prompt_tokens: int | None = None
    num_cached_tokens: int = 0
    """Prompt tokens from the prefix cache. Of several sequences of one prompt, only the first counts."""
    num_completion_tokens: int = 0
    finish_reasons: list[str] = field(default_factory=list)
    timings: RequestTimings | None = None
    """The timings of all ended sequences together. None: none has ended."""
    error_code: str | None = None
    """Code of the error that the client got, as a status or as an event."""

    def note_user(self, user: str | None) -> None:
        """Record the caller's end user as a hash, which tells users apart without identifying them."""
        if user:
            self.user_hash = hashlib.sha256(user.encode()).hexdigest()[:16]

    def reserve(self, num_tokens: int) -> None:
        """Reserve tokens of the key's budgets. Raises as `Account.reserve` does."""
        if self.account is not None:
            self.account.reserve(num_tokens)

    def settle(self, *, is_refusal: bool = False) -> None:
        """The request has ended: count its usage for its key. Idempotent."""
        if self.account is None:
            return
        is_admitted = self.admitted_s is not None
        self.account.settle(
            Usage(
                num_requests=int(is_admitted),
                num_prompt_tokens=(self.num_prompt_tokens or 0) if is_admitted else 0,
                num_completion_tokens=self.num_completion_tokens,
                num_refusals=int(is_refusal),
            )
        )
        self.account = None

    def admit(self, num_sequences: int) -> None:
        """Record that the engine admitted the request."""
        self.admitted_s = self.clock()
        self.num_sequences = num_sequences

    @property
    def abort_reason(self) -> str | None:
        """Why an admitted request did not complete. None: it completed, or was not admitted."""
        if self.admitted_s is None:
            return None
        if self.is_disconnect and len(self.finish_reasons) < self.num_sequences:
            return DISCONNECT
        return None if self.error_code is None else ABORT_REASONS.get(self.error_code, ABORT_ERROR)

    def note(self, delta: SequenceDelta) -> None:
        """Record a sequence's last delta."""
        timings = delta.timings
        assert delta.finish_reason is not None
        assert timings is not None
        self.finish_reasons.append(delta.finish_reason.value)
        self.num_completion_tokens += delta.num_completion_tokens
        if delta.index == 0:
            self.num_cached_tokens += delta.num_cached_tokens
        self.timings = timings if self.timings is None else self.timings.merge(timings)

    @property
    def tokens_per_s(self) -> float | None:
        """Completion tokens after the first per second of decoding, of all sequences together."""
        return None if self.timings is None else self.timings.decode_tokens_per_s(self.num_completion_tokens)

    def log_fields(self) -> dict[str, object]:
        """The known fields for the log line; times in milliseconds."""
        fields: dict[str, object] = {
            "method": self.method,
            "route": self.route,
            "status": self.status,
            "duration_ms": _ms(self.duration_s),
        }
        if self.num_prompt_tokens is not None:
            fields |= {
                "prompt_tokens": self.num_prompt_tokens,
                "completion_tokens": self.num_completion_tokens,
                "cached_tokens": self.num_cached_tokens,
                "stream": self.is_streamed,
                "finish_reason": ",".join(sorted(set(self.finish_reasons))) or None,
            }
        others = {
            "key": self.caller.name if self.caller.is_key else None,
            **self._log_timings(),
            "user_hash": self.user_hash,
            "error_code": self.error_code,
            "abort_reason": self.abort_reason,
            "is_disconnect": self.is_disconnect or None,
            "request_id": self.request_id,
        }
        return fields | {name: value for name, value in others.items() if value is not None}

    def _log_timings(self) -> dict[str, float | None]:
        timings, rate = self.timings, self.tokens_per_s
        if timings is None:
            return {}
        return {
            "queue_ms": _ms(timings.queue_s),
            "prefill_ms": _ms(timings.prefill_s),
            "decode_ms": _ms(timings.decode_s),
            "ttft_ms": _ms(timings.ttft_s),
            "tokens_per_s": None if rate is None else round(rate, 1),
        }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
