"""Deltas to TGI's answers: one object, or an event per token."""

from collections.abc import Iterable

import orjson

from distilgpt2_api.core.outputs import FinishReason, SequenceDelta
from distilgpt2_api.core.seeds import sequence_seed
from distilgpt2_api.engine.scoring import MIN_LOGPROB
from distilgpt2_api.observability.request_record import RequestRecord
from distilgpt2_api.server.generation.best_of import ranked
from distilgpt2_api.server.generation.generation import PromptDeltas
from distilgpt2_api.server.generation.plan import GenerationPlan
from distilgpt2_api.server.http.responses.responses import Headers
from distilgpt2_api.server.http.responses.stream_formats import dump_line
from distilgpt2_api.server.protocols.tgi.schema import TgiRequest
from distilgpt2_api.server.protocols.tgi.tokens import ShownToken, TgiTokens, token_body, top_token_bodies
from distilgpt2_api.server.service import Service


class TgiWriter:
    """Mutable: one request's sequences."""

    def __init__(self, request: TgiRequest, plan: GenerationPlan, service: Service, *, is_list: bool) -> None:
        """`is_list`: a whole answer is a list with one object."""
        self._parameters = request.own_parameters
        self._is_list = is_list
        # The whole prompt, even if it was truncated.
        self._text_before = request.inputs if self._parameters.return_full_text else ""
        [generation] = plan.requests
        self._prompt_token_ids = generation.prompt_token_ids
        self._seed = None if generation.params.is_greedy else generation.params.seed
        self._tokenizer = service.engine.tokenizer
        self._eos_token_ids = service.engine.model_config.eos_token_ids
        self._streamed = TgiTokens(self._tokenizer, eos_token_ids=self._eos_token_ids)
        self._num_events = 0
        self._ended: list[SequenceDelta] = []

    # ---- a stream

    def events(self, update: Iterable[PromptDeltas]) -> bytes:
        """An event for each complete token; the last one has the whole text."""
        pieces: list[bytes] = []
        for _, deltas in update:
            for delta in deltas:
                tokens = self._streamed.accept(delta)
                for token in tokens:
                    body = self._event(token)
                    if delta.finish_reason is not None and token is tokens[-1]:
                        body |= self._last_fields(delta)
                    pieces += (b"data:", dump_line(body), b"\n\n")
        return b"".join(pieces)

    def last_events(self) -> bytes:
        """Empty: the last token's event is the last."""
        return b""

    def _event(self, token: ShownToken) -> dict[str, object]:
        self._num_events += 1
        body: dict[str, object] = {"index": self._num_events, "token": token_body(token)}
        if num_top := self._parameters.top_n_tokens:
            body["top_tokens"] = top_token_bodies(token, self._tokenizer, num_top=num_top)
        return body | {"generated_text": None, "details": None}

    def _last_fields(self, delta: SequenceDelta) -> dict[str, object]:
        fields: dict[str, object] = {"generated_text": self._answer_text(self._streamed)}
        if self._parameters.has_details:
            fields["details"] = {
                "finish_reason": _finish_reason(delta),
                "generated_tokens": delta.num_completion_tokens,
                "seed": self._seed_of(delta.index),
                "input_length": len(self._prompt_token_ids),
            }
        return fields

    # ---- a whole

    def collect(self, update: Iterable[PromptDeltas]) -> None:
        """Add one update to the whole: the only delta of each of its sequences."""
        for _, deltas in update:
            self._ended += deltas

    def body(self) -> bytes:
        """The sequence with the highest mean log-probability; the others are in its details."""
        best, *others = ranked(self._ended)
        answer = self._sequence(best)
        text = answer.pop("generated_text")
        body: dict[str, object] = {"generated_text": text}
        if self._parameters.has_details:
            if others:
                others.sort(key=lambda delta: delta.index)
                answer["best_of_sequences"] = [self._sequence(delta) for delta in others]
            body["details"] = answer
        return orjson.dumps([body] if self._is_list else body)

    def _sequence(self, delta: SequenceDelta) -> dict[str, object]:
        """TGI's `BestOfSequence`; without details, only its text."""
        shown = TgiTokens(self._tokenizer, eos_token_ids=self._eos_token_ids)
        tokens = shown.accept(delta)
        text = self._answer_text(shown)
        if not self._parameters.has_details:
            return {"generated_text": text}
        body: dict[str, object] = {
            "generated_text": text,
            "finish_reason": _finish_reason(delta),
            "generated_tokens": delta.num_completion_tokens,
            "seed": self._seed_of(delta.index),
            "prefill": self._prefill(delta) if self._parameters.decoder_input_details else [],
            "tokens": [token_body(token) for token in tokens],
        }
        if num_top := self._parameters.top_n_tokens:
            body["top_tokens"] = [top_token_bodies(token, self._tokenizer, num_top=num_top) for token in tokens]
        return body

    def _prefill(self, delta: SequenceDelta) -> list[dict[str, object]]:
        """The prompt's tokens. The first has no log-probability."""
        logprobs = [None, *(max(token.logprob, MIN_LOGPROB) for token in delta.prompt_logprobs or ())]
        return [
            {"id": token_id, "text": self._tokenizer.decode([token_id]), "logprob": logprob}
            for token_id, logprob in zip(self._prompt_token_ids, logprobs, strict=True)
        ]

    # ---- both

    def _seed_of(self, index: int) -> int | None:
        """The seed with which a request for one sequence samples this one again; None if greedy."""
        return None if self._seed is None else sequence_seed(self._seed, index)

    def _answer_text(self, tokens: TgiTokens) -> str:
        return self._text_before + tokens.generated_text()


def timing_headers(record: RequestRecord) -> Headers:
    """TGI's headers of a whole answer: times in whole milliseconds, as TGI has them."""
    timings = record.timings
    assert timings is not None, "the answer is complete"
    assert record.admitted_s is not None
    total_s = record.clock() - record.started_s
    inference_s = timings.total_s - timings.queue_s
    # The engine's thread may begin before this one notes the admission, and no time counts twice.
    validation_s = min(record.admitted_s - record.started_s, total_s - timings.total_s)
    values = {
        b"x-total-time": 1000 * total_s,
        b"x-validation-time": 1000 * validation_s,
        b"x-queue-time": 1000 * timings.queue_s,
        b"x-inference-time": 1000 * inference_s,
        b"x-time-per-token": 1000 * inference_s / max(1, record.num_completion_tokens),
        b"x-prompt-tokens": record.num_prompt_tokens or 0,
        b"x-generated-tokens": record.num_completion_tokens,
    }
    return [(name, b"%d" % value) for name, value in values.items()]


def _finish_reason(delta: SequenceDelta) -> str:
    if delta.finish_reason is FinishReason.LENGTH:
        return "length"
    return "stop_sequence" if isinstance(delta.stop, str) else "eos_token"
