"""What goes together with a beam search, and what does not."""

from __future__ import annotations

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.core.params import BEAM_SEARCH_PARAMETERS, PARAMETERS, SamplingParams
from distilgpt2_api.engine.beam_search import BeamOptions
from distilgpt2_api.scheduling.sequence import EndingTokens

MAX_LENGTH_PENALTY = 10.0
"""Of either sign: a thousand tokens to a higher power are soon no number any more."""

MAX_STOP_TOKEN_IDS = 64
"""Each beam's likeliest tokens are looked through in each step, and so many more for tokens that end it."""


def check_beam_search(
    params: SamplingParams,
    options: BeamOptions,
    config: ModelConfig,
    *,
    is_streamed: bool,
    grammar_param: str,
) -> None:
    """Raise InvalidRequestError for what does not go with a beam search; `grammar_param` is the caller's word."""
    foreign = [grammar_param if name == "grammar" else name for name in _find_foreign(params)]
    if is_streamed:
        foreign.append("stream")
    if foreign:
        raise InvalidRequestError(f"{foreign[0]}: not together with use_beam_search", param=foreign[0])
    if params.max_tokens < 1:
        raise InvalidRequestError("max_tokens: at least 1 with use_beam_search", param="max_tokens")
    if len(params.stop_token_ids) > MAX_STOP_TOKEN_IDS:
        raise InvalidRequestError(
            f"stop_token_ids: at most {MAX_STOP_TOKEN_IDS} with use_beam_search", param="stop_token_ids"
        )
    max_beams = config.vocab_size - len(find_ending_token_ids(params, config))
    if options.num_beams > max_beams:
        raise InvalidRequestError(
            f"use_beam_search: at most {max_beams} beams with this model", param="use_beam_search"
        )


def _find_foreign(params: SamplingParams) -> list[str]:
    """Names of the fields that a search would have to ignore."""
    foreign = [
        item.name
        for item in PARAMETERS
        if item.name not in BEAM_SEARCH_PARAMETERS and getattr(params, item.name) != item.default
    ]
    return [name for name in foreign if not (name == "temperature" and params.is_greedy)]


def find_ending_token_ids(params: SamplingParams, config: ModelConfig) -> frozenset[int]:
    """The tokens that end a sequence."""
    return EndingTokens.of(params, eos_token_ids=config.eos_token_ids).all
