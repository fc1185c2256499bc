"""A request's timings as answers and response headers have them. The engine has measured them: `RequestTimings`."""

from pydantic import Field

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
    timings = record.timings
    if timings is None:
        return None
    num_computed = (record.num_prompt_tokens or 0) - record.num_cached_tokens
    prompt_per_s = num_computed / timings.prefill_s if timings.prefill_s and num_computed > 0 else None
    return {
        "queue_ms": _ms(timings.queue_s),
        "cache_n": record.num_cached_tokens,
        "prompt_n": num_computed,
        "prompt_ms": _ms(timings.prefill_s or 0.0),
        **_rates("prompt", prompt_per_s),
        "predicted_n": record.num_completion_tokens,
        "predicted_ms": _ms(timings.decode_s or 0.0),
        **_rates("predicted", record.tokens_per_s),
    }


def _rates(name: str, per_s: float | None) -> dict[str, object]:
    return {
        f"{name}_per_token_ms": None if per_s is None else _ms(1 / per_s),
        f"{name}_per_second": None if per_s is None else round(per_s, 3),
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
