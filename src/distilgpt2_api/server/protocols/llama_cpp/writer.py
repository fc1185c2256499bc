"""Deltas to llama.cpp's answers: one object or a list of them, or an event for each piece of a text."""

from collections.abc import Iterable
from typing import Any

import orjson

from distilgpt2_api.core.outputs import FinishReason, SequenceDelta
from distilgpt2_api.core.params import PLAIN_PARAMETERS, SAMPLERS, SamplingParams
from distilgpt2_api.core.plan import TokenLogprobs
from distilgpt2_api.core.seeds import sequence_seed
from distilgpt2_api.observability.request_record import RequestRecord
from distilgpt2_api.server.generation.generation import PromptDeltas
from distilgpt2_api.server.generation.plan import GenerationPlan
from distilgpt2_api.server.generation.timings import LiveTimings, describe_timings, prompt_progress
from distilgpt2_api.server.generation.token_logprobs import token_body
from distilgpt2_api.server.http.responses.stream_formats import dump_line
from distilgpt2_api.server.protocols.llama_cpp.schema import LlamaCompletionRequest
from distilgpt2_api.server.schema.reference_apis import REFERENCE_APIS
from distilgpt2_api.server.service import Service

SHARED_NAMES = sorted(PLAIN_PARAMETERS.keys() & set(REFERENCE_APIS["llama_cpp"].parameters))
"""The register's plain parameters that llama.cpp has under the same name."""


class LlamaWriter:
    """Mutable: one request's sequences."""

    def __init__(
        self, request: LlamaCompletionRequest, plan: GenerationPlan, service: Service, record: RequestRecord
    ) -> None:
        self._request = request
        self._plan = plan
        self._model_name = service.model.shown_name
        # Here, not at each delta: an engine that has failed has neither.
        self._tokenizer, self._config = service.engine.tokenizer, service.engine.model_config
        self._live = LiveTimings(record)
        self._begun: set[int] = set()
        """Prompts with a delta."""
        self._has_new_line: dict[int, bool] = {}
        self._completions: dict[int, dict[str, Any]] = {}

    # ---- a stream

    def events(self, update: Iterable[PromptDeltas]) -> bytes:
        """An event for each delta with a token or a text, and one for each end."""
        pieces: list[bytes] = []
        for prompt_index, deltas in update:
            for delta in deltas:
                token_ids = self._token_ids(delta)
                if token_ids or delta.text:
                    pieces += (b"data: ", dump_line(self._chunk(prompt_index, delta, token_ids)), b"\n\n")
                if delta.finish_reason is not None:
                    pieces += (b"data: ", dump_line(self._completion(prompt_index, delta)), b"\n\n")
        return b"".join(pieces)

    def last_events(self) -> bytes:
        """Empty: a completion's last event is the last."""
        return b""

    def _chunk(self, prompt_index: int, delta: SequenceDelta, token_ids: list[int]) -> dict[str, object]:
        index = self._index(prompt_index, delta)
        self._has_new_line[index] = self._has_new_line.get(index, False) or "\n" in delta.text
        chunk: dict[str, object] = {
            "index": index,
            "content": delta.text,
            "tokens": token_ids,
            "stop": False,
            "id_slot": self._id_slot,
            "tokens_predicted": delta.num_completion_tokens,
            "tokens_evaluated": len(self._plan.requests[prompt_index].prompt_token_ids),
        }
        if self._request.return_progress and prompt_index not in self._begun:
            chunk["prompt_progress"] = prompt_progress(self._live_timings(prompt_index, delta))
        self._begun.add(prompt_index)
        if self._request.timings_per_token:
            chunk["timings"] = self._live_timings(prompt_index, delta)
        if delta.logprobs:
            chunk["completion_probabilities"] = self._probabilities(delta.logprobs)
        return chunk

    def _live_timings(self, prompt_index: int, delta: SequenceDelta) -> dict[str, object]:
        return self._live.describe(**self._counts(prompt_index, delta))

    # ---- a whole

    def collect(self, update: Iterable[PromptDeltas]) -> None:
        """Add one update to the whole: the only delta of each of its sequences."""
        for prompt_index, deltas in update:
            for delta in deltas:
                index = self._index(prompt_index, delta)
                self._has_new_line[index] = "\n" in delta.text
                self._completions[index] = self._completion(prompt_index, delta)

    def body(self) -> bytes:
        """A list, unless there is only one completion."""
        completions = [self._completions[index] for index in sorted(self._completions)]
        return orjson.dumps(completions if len(completions) > 1 else completions[0])

    # ---- both

    def _completion(self, prompt_index: int, delta: SequenceDelta) -> dict[str, Any]:
        request = self._request
        assert delta.timings is not None
        index, generation = self._index(prompt_index, delta), self._plan.requests[prompt_index]
        num_tokens = len(generation.prompt_token_ids) + delta.num_completion_tokens
        is_full = num_tokens >= self._config.num_positions
        is_limited = request.n_predict is not None and 0 <= request.n_predict <= delta.num_completion_tokens
        completion: dict[str, Any] = {
            "index": index,
            "content": "" if request.stream else delta.text,
            "tokens": self._token_ids(delta) if request.return_tokens and not request.stream else [],
            "id_slot": self._id_slot,
            "stop": True,
            "model": self._model_name,
            "tokens_predicted": delta.num_completion_tokens,
            "tokens_evaluated": len(generation.prompt_token_ids),
            "generation_settings": self._settings(generation.params, delta.index),
            "prompt": self._tokenizer.decode(generation.prompt_token_ids),
            "has_new_line": self._has_new_line.get(index, False),
            "truncated": is_full and not is_limited and delta.finish_reason is FinishReason.LENGTH,
            "stop_type": _stop_type(delta),
            "stopping_word": delta.stop if isinstance(delta.stop, str) else "",
            "tokens_cached": delta.num_cached_tokens,
            "timings": describe_timings(delta.timings, **self._counts(prompt_index, delta)),
        }
        if request.n_probs and not request.stream:
            completion["completion_probabilities"] = self._probabilities(delta.logprobs)
        return _only(request.response_fields, completion) if request.response_fields else completion

    @property
    def _id_slot(self) -> int:
        return -1 if self._request.id_slot is None else self._request.id_slot

    def _index(self, prompt_index: int, delta: SequenceDelta) -> int:
        return prompt_index * self._request.num_sequences + delta.index

    def _token_ids(self, delta: SequenceDelta) -> list[int]:
        """Without the end-of-text token that ended the text."""
        eos_token_ids = self._config.eos_token_ids
        is_ended = delta.finish_reason is FinishReason.STOP and delta.stop is None
        if is_ended and delta.token_ids and delta.token_ids[-1] in eos_token_ids:
            return [*delta.token_ids[:-1]]
        return [*delta.token_ids]

    def _settings(self, params: SamplingParams, index: int) -> dict[str, object]:
        request = self._request
        return completion_settings(
            params,
            n_predict=-1 if request.n_predict is None else request.n_predict,
            n_ctx=self._config.num_positions,
        ) | {
            "seed": sequence_seed(params.seed, index),
            "stream": bool(request.stream),
            "timings_per_token": bool(request.timings_per_token),
            "logit_bias": [
                *({"token": token_id, "bias": bias} for token_id, bias in params.logit_bias),
                *({"token": token_id, "bias": None} for (token_id,) in params.bad_words),
            ],
        }

    def _counts(self, prompt_index: int, delta: SequenceDelta) -> dict[str, int]:
        return {
            "num_prompt_tokens": len(self._plan.requests[prompt_index].prompt_token_ids),
            "num_cached_tokens": delta.num_cached_tokens,
            "num_completion_tokens": delta.num_completion_tokens,
        }

    def _probabilities(self, logprobs: Iterable[TokenLogprobs]) -> list[dict[str, object]]:
        num_top = self._request.n_probs
        return [
            self._token(token.token_id, token.logprob)
            | {"top_logprobs": [self._token(token_id, logprob) for token_id, logprob in token.top[:num_top]]}
            for token in logprobs
        ]

    def _token(self, token_id: int, logprob: float) -> dict[str, object]:
        return {"id": token_id, **token_body(token_id, logprob, self._tokenizer)}


def completion_settings(params: SamplingParams, *, n_predict: int, n_ctx: int) -> dict[str, object]:
    """llama.cpp's `generation_settings`: the parameters of a completion by llama.cpp's names."""
    shared = {name: getattr(params, name) for name in SHARED_NAMES}
    return shared | {
        "n_ctx": n_ctx,
        "n_predict": n_predict,
        "max_tokens": n_predict,
        "repeat_penalty": params.repetition_penalty,
        "stop": [*params.stop],
        "n_probs": params.num_logprobs or 0,
        "dry_sequence_breakers": [*params.dry_sequence_breakers],
        "samplers": [*SAMPLERS],
    }


def _stop_type(delta: SequenceDelta) -> str:
    if delta.finish_reason is FinishReason.LENGTH:
        return "limit"
    return "word" if isinstance(delta.stop, str) else "eos"


def _only(paths: Iterable[str], completion: dict[str, Any]) -> dict[str, Any]:
    """The named fields. A path such as `a/b` is the name of field `b` of `a`; an unknown one is left out."""
    kept: dict[str, Any] = {}
    for path in paths:
        value: Any = completion
        for name in path.split("/"):
            if not isinstance(value, dict) or name not in value:
                break
            value = value[name]
        else:
            kept[path] = value
    return kept
