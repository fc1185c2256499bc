"""What requests for completions and for chat have in common: how to draw, and how to answer."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distilgpt2_api.server.schemas.structured import StructuredFields
from distilgpt2_api.server.schemas.validation import Body

Penalty = Annotated[float, Field(ge=-2, le=2)]
Probability = Annotated[float, Field(ge=0, le=1)]
TokenId = Annotated[int, Field(ge=0, le=2**31)]
StopSequence = Annotated[str, Field(min_length=1)]
TokenIdText = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,8})$")]
Bias = Annotated[float, Field(ge=-100, le=100)]
BadWord = Annotated[str, Field(min_length=1, max_length=256)]


class StreamOptions(Body):
    include_usage: bool | None = Field(None, description="A last chunk without choices brings the usage.")
    continuous_usage_stats: bool | None = Field(None, description="Every chunk brings the usage so far.")


class SamplingFields(StructuredFields):
    """Null means the default, for every field."""

    model: str | None = Field(None, description="The served model's name or alias.")
    min_tokens: int | None = Field(None, ge=0, le=2**31, description="No end of text before that many tokens.")
    n: int | None = Field(None, ge=1, le=128, description="Completions of each prompt.")
    temperature: float | None = Field(None, ge=0, le=2, description="1 by default; 0 is greedy.")
    top_p: Probability | None = Field(None, description="1 by default.")
    top_k: int | None = Field(None, ge=-1, le=2**31, description="0 and -1, the default, are off.")
    min_p: Probability | None = Field(None, description="0 by default.")
    typical_p: float | None = Field(None, gt=0, le=1, description="1 by default.")
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    no_repeat_ngram_size: int | None = Field(None, ge=0, le=2**31)
    logit_bias: dict[TokenIdText, Bias] | None = Field(None, description="Token ids, as strings, to biases.")
    bad_words: list[BadWord] | None = Field(
        None, max_length=256, description="Texts that the completion must not have, at its beginning or after a space."
    )
    allowed_token_ids: list[TokenId] | None = Field(None, min_length=1, description="Nothing else is drawn.")
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: StopSequence | list[StopSequence] | None = None
    stop_token_ids: list[TokenId] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = Field(None, description="The end of text is a token like any other.")
    skip_special_tokens: bool | None = Field(
        None, description="With `ignore_eos`: the end of text is drawn, but not shown."
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    priority: int | None = Field(None, ge=-(2**31), lt=2**31, description="Lower is served earlier. 0 by default.")
    timeout_s: float | None = Field(None, gt=0, description="Seconds, queue included; then the request fails.")
    user: str | None = Field(None, description="Logged as a hash.")


NEUTRAL_VALUES: dict[str, tuple[object, ...]] = {
    "truncate_prompt_tokens": (),
    "truncation_side": (),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "prompt_logprobs": (),
    "logprob_token_ids": (),
    "guided_decoding_backend": (),
    "guided_whitespace_pattern": (),
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "early_stopping": (False,),
    "request_id": (),
    "session_id": (),
    "cache_salt": (),
    "logits_processors": ([],),
    "watermarking": (False,),
    "repetition_detection": (),
    "thinking_token_budget": (-1,),
    "stream_interval": (1,),
    "spaces_between_special_tokens": (True, False),
    "return_mm_kwargs": (True,),
    "routed_experts_prompt_start": (0,),
    "kv_transfer_params": (),
    "ec_transfer_params": (),
    "vllm_xargs": (),
}
"""Parameters that peers have: the values, beside null, that ask for nothing. A route leaves out those it supports.

`spaces_between_special_tokens` is here because a byte-level tokenizer puts none between them either way.
"""
