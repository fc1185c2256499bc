"""The plan of one HTTP request: all that the engine is to compute for it, checked and frozen before anything runs."""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.async_engine import AsyncEngine
from distilgpt2_api.engine.beam_search import BeamOptions
from distilgpt2_api.observability.request_record import RequestRecord
from distilgpt2_api.server.generation.beam_search import BeamGeneration
from distilgpt2_api.server.generation.generation import Generation
from distilgpt2_api.server.generation.prompts import EncodedPrompt

MAX_ANSWER_LOGPROBS = 1 << 18
"""In an answer that is not a stream: each takes up to 450 bytes while the answer is built."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationPlan:
    """One engine request per prompt; `plan_generation` builds them if the prompts share their parameters."""

    requests: Sequence[GenerationRequest]
    prompts: Sequence[EncodedPrompt] = ()
    """The prompts of `requests`, for answers that repeat them."""
    beams: BeamOptions | None = None
    """None: sampling, no beam search."""

    @property
    def num_prompt_tokens(self) -> int:
        return sum(len(request.prompt_token_ids) for request in self.requests)

    def run(self, engine: AsyncEngine, record: RequestRecord) -> Generation:
        """The plan's computation, which starts when its first update is read."""
        if self.beams is None:
            return Generation(engine, self.requests, record)
        return BeamGeneration(engine, self.requests, self.beams, record)

    def check_num_logprobs(self, config: ModelConfig, *, param: str | None, prompt_param: str | None = None) -> None:
        """Raise InvalidRequestError for more log-probabilities than one answer may have: it is built in memory.

        `param` is the field that requests those of sampled tokens, `prompt_param` those of prompts; None: no field.
        """
        counts: Counter[str] = Counter()
        for request in self.requests:
            params = request.params
            if param is not None:
                num_tokens = min(params.max_tokens, config.num_positions)  # the engine refuses more than the context
                counts[param] += request.num_sequences * num_tokens * (1 + (params.num_logprobs or 0))
            if prompt_param is not None:
                counts[prompt_param] += len(request.prompt_token_ids) * (1 + (params.num_prompt_logprobs or 0))
        if counts.total() > MAX_ANSWER_LOGPROBS:
            [(name, _)] = counts.most_common(1)
            raise InvalidRequestError(
                f"{name} requests {counts.total()} log-probabilities over all prompts and tokens; an answer may have at"
                f" most {MAX_ANSWER_LOGPROBS}: send fewer prompts, or ask for fewer tokens",
                param=name,
            )


def plan_generation(
    prompts: Sequence[EncodedPrompt],
    params: SamplingParams,
    *,
    num_sequences: int,
    is_streamed: bool,
    deadline_s: float,
    priority: int = 0,
    beams: BeamOptions | None = None,
) -> GenerationPlan:
    """`num_sequences` per prompt: those that are sampled, or the best ones of a beam search."""
    group_id = uuid.uuid4().hex
    requests = [
        GenerationRequest(
            request_id=f"{group_id}-{index}",
            prompt_token_ids=prompt.token_ids,
            params=params,
            num_sequences=num_sequences,
            is_streamed=is_streamed,
            priority=priority,
            deadline_s=deadline_s,
        )
        for index, prompt in enumerate(prompts)
    ]
    return GenerationPlan(requests=requests, prompts=prompts, beams=beams)
