"""Scores to the answer of `/v1/score`."""

from collections.abc import Iterable, Sequence

import orjson

from distilgpt2_api.core.outputs import FinishReason, SequenceDelta
from distilgpt2_api.core.plan import TokenLogprobs
from distilgpt2_api.engine.scoring import MIN_LOGPROB, score_of
from distilgpt2_api.observability.request_record import RequestRecord
from distilgpt2_api.server.generation.generation import PromptDeltas
from distilgpt2_api.server.generation.plan import GenerationPlan
from distilgpt2_api.server.generation.timings import timings_of
from distilgpt2_api.server.protocols.score.schema import ScoreRequest
from distilgpt2_api.server.service import Service


class ScoreWriter:
    """Mutable: one request's scores as they arrive, in any order."""

    def __init__(self, request: ScoreRequest, plan: GenerationPlan, service: Service, record: RequestRecord) -> None:
        self._request = request
        self._record = record
        self._model = service.model.shown_name
        self._tokenizer = service.engine.tokenizer
        self._num_prompt_tokens = plan.num_prompt_tokens
        self._num_cached_tokens = 0
        self._scores: list[dict[str, object]] = [{} for _ in plan.requests]

    def collect(self, update: Iterable[PromptDeltas]) -> None:
        for index, deltas in update:
            for delta in deltas:
                if delta.finish_reason is FinishReason.LENGTH:  # the prompt is all; else the client is gone
                    self._scores[index] = self._score(index, delta)
                    self._num_cached_tokens += delta.num_cached_tokens

    def body(self) -> bytes:
        usage = {
            "prompt_tokens": self._num_prompt_tokens,
            "total_tokens": self._num_prompt_tokens,
            "prompt_tokens_details": {"cached_tokens": self._num_cached_tokens},
        }
        body: dict[str, object] = {"object": "list", "data": self._scores, "model": self._model, "usage": usage}
        return orjson.dumps(body | {"timings": timings_of(self._record)} if self._request.timings else body)

    def _score(self, index: int, delta: SequenceDelta) -> dict[str, object]:
        logprobs = delta.prompt_logprobs or ()
        score = score_of(logprobs, self._tokenizer.token_bytes)
        body: dict[str, object] = {"object": "score", "index": index, **score.as_fields()}
        return body | self._tokens(logprobs) if self._request.token_logprobs else body

    def _tokens(self, logprobs: Sequence[TokenLogprobs]) -> dict[str, object]:
        return {
            "tokens": [self._tokenizer.token_text(token.token_id) for token in logprobs],
            "token_ids": [token.token_id for token in logprobs],
            "token_logprobs": [max(token.logprob, MIN_LOGPROB) for token in logprobs],
        }
