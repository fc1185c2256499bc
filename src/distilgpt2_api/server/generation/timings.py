"""A request's timings as answers and response headers have them. The engine has measured them: `RequestTimings`."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from distilgpt2_api.core.outputs import RequestTimings
from distilgpt2_api.observability.request_record import RequestRecord
from distilgpt2_api.server.schema.deferred_model import DeferredModel


class Timings(DeferredModel):
    """llama.cpp's `timings`, for all prompts and completions of the request together, and the time in the queue."""

    queue_ms: float = Field(description="From the request's admission to its first step, in milliseconds.")
    cache_n: int = Field(description="Prompt tokens that came from the prefix cache.")
    prompt_n: int = Field(description="Prompt tokens that were computed.")
    prompt_ms: float = Field(description="Prefill: from the first step to the first token, in milliseconds.")
    prompt_per_token_ms: float | None = Field(description="Null if no prompt token was computed.")
    prompt_per_second: float | None
    predicted_n: int = Field(description="Completion tokens.")
    predicted_ms: float = Field(description="Decode: from the first token to the end, in milliseconds.")
    predicted_per_token_ms: float | None = Field(
        description="Mean time per token after the first. Null without such a token."
    )
    predicted_per_second: float | None = Field(description="Tokens after the first, per second.")


def timings_of(record: RequestRecord) -> dict[str, object] | None:
    """The fields of `Timings`. None: no sequence of the request has ended."""
    if record.timings is None:
        return None
    return describe_timings(
        record.timings,
        num_prompt_tokens=record.num_prompt_tokens or 0,
        num_cached_tokens=record.num_cached_tokens,
        num_completion_tokens=record.num_completion_tokens,
    )


def describe_timings(
    timings: RequestTimings, *, num_prompt_tokens: int, num_cached_tokens: int, num_completion_tokens: int
) -> dict[str, object]:
    """The fields of `Timings`, of a request or of one sequence."""
    num_computed = num_prompt_tokens - num_cached_tokens
    prompt_per_s = num_computed / timings.prefill_s if timings.prefill_s and num_computed > 0 else None
    return {
        "queue_ms": _ms(timings.queue_s),
        "cache_n": num_cached_tokens,
        "prompt_n": num_computed,
        "prompt_ms": _ms(timings.prefill_s or 0.0),
        **_rates("prompt", prompt_per_s),
        "predicted_n": num_completion_tokens,
        "predicted_ms": _ms(timings.decode_s or 0.0),
        **_rates("predicted", timings.decode_tokens_per_s(num_completion_tokens)),
    }


class LiveTimings:
    """Mutable: timings of a request that still runs, as measured where its deltas arrive.

    The queue is part of the prefill: the engine tells them apart at the end.
    """

    def __init__(self, record: RequestRecord) -> None:
        self._record = record
        self._first_s: float | None = None
        """When the first delta arrived, on the record's clock."""

    def describe(
        self, *, num_prompt_tokens: int, num_cached_tokens: int, num_completion_tokens: int
    ) -> dict[str, object]:
        """The fields of `Timings`, when a delta has arrived."""
        record, now_s = self._record, self._record.clock()
        if self._first_s is None:
            self._first_s = now_s
        begun_s = record.started_s if record.admitted_s is None else record.admitted_s
        timings = RequestTimings(queue_s=0.0, prefill_s=self._first_s - begun_s, decode_s=now_s - self._first_s)
        return describe_timings(
            timings,
            num_prompt_tokens=num_prompt_tokens,
            num_cached_tokens=num_cached_tokens,
            num_completion_tokens=num_completion_tokens,
        )


class PromptProgress(DeferredModel):
    """llama.cpp's: here the whole prompt, once it is computed."""

    total: int
    cache: int = Field(description="Tokens that came from the prefix cache.")
    processed: int
    time_ms: float


def prompt_progress(timings: Mapping[str, Any]) -> dict[str, object]:
    """The fields of `PromptProgress` from those of `Timings`."""
    num_tokens = timings["cache_n"] + timings["prompt_n"]
    return {
        "total": num_tokens,
        "cache": timings["cache_n"],
        "processed": num_tokens,
        "time_ms": timings["prompt_ms"],
    }


def _rates(name: str, per_s: float | None) -> dict[str, object]:
    return {
        f"{name}_per_token_ms": None if per_s is None else _ms(1 / per_s),
        f"{name}_per_second": None if per_s is None else round(per_s, 3),
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
