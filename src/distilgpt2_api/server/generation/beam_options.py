"""The parameters that a beam search supports."""

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.core.params import BEAM_SEARCH_PARAMETERS, PARAMETERS, SamplingParams
from distilgpt2_api.engine.beam_search import BeamOptions
from distilgpt2_api.scheduling.sequence import EndingTokens

MAX_LENGTH_PENALTY = 10.0
"""In absolute value: a thousand tokens to a higher power soon overflow a float."""

MAX_STOP_TOKEN_IDS = 64
"""Each step reads this many more of each beam's likeliest tokens, because some of them may end the beam."""


def check_beam_search(
    params: SamplingParams,
    options: BeamOptions,
    config: ModelConfig,
    *,
    is_streamed: bool,
    grammar_param: str,
) -> None:
    """Raise InvalidRequestError for parameters that a beam search does not support.

    `grammar_param`: the field of the request that the grammar comes from.
    """
    unsupported = [grammar_param if name == "grammar" else name for name in _unsupported_fields(params)]
    if is_streamed:
        unsupported.append("stream")
    if unsupported:
        raise InvalidRequestError(f"{unsupported[0]} cannot be used with use_beam_search", param=unsupported[0])
    if params.max_tokens < 1:
        raise InvalidRequestError("max_tokens must be at least 1 with use_beam_search", param="max_tokens")
    if len(params.stop_token_ids) > MAX_STOP_TOKEN_IDS:
        raise InvalidRequestError(
            f"stop_token_ids has {len(params.stop_token_ids)} tokens; use_beam_search allows at most"
            f" {MAX_STOP_TOKEN_IDS}",
            param="stop_token_ids",
        )
    max_beams = config.vocab_size - len(find_ending_token_ids(params, config))
    if options.num_beams > max_beams:
        raise InvalidRequestError(
            f"use_beam_search has {options.num_beams} beams; this model allows at most {max_beams}",
            param="use_beam_search",
        )


def _unsupported_fields(params: SamplingParams) -> list[str]:
    """Names of the fields that a search would have to ignore."""
    names = [
        item.name
        for item in PARAMETERS
        if item.name not in BEAM_SEARCH_PARAMETERS and getattr(params, item.name) != item.default
    ]
    return [name for name in names if not (name == "temperature" and params.is_greedy)]


def find_ending_token_ids(params: SamplingParams, config: ModelConfig) -> frozenset[int]:
    """The tokens that end a sequence."""
    return EndingTokens.of(params, eos_token_ids=config.eos_token_ids).all
