"""Deltas to Ollama's answers: one object, or a line for each piece of the text and a last one with the durations."""

from collections.abc import Iterable
from datetime import UTC, datetime

import orjson

from distilgpt2_api.core.outputs import FinishReason, SequenceDelta
from distilgpt2_api.server.generation.generation import PromptDeltas
from distilgpt2_api.server.generation.plan import GenerationPlan
from distilgpt2_api.server.generation.token_logprobs import token_with_top
from distilgpt2_api.server.http.responses.stream_formats import dump_line
from distilgpt2_api.server.protocols.ollama.schema import OllamaChatRequest, OllamaGenerateRequest
from distilgpt2_api.server.service import Service

Request = OllamaGenerateRequest | OllamaChatRequest


class OllamaWriter:
    """Mutable: one request's only sequence."""

    def __init__(self, request: Request, plan: GenerationPlan, service: Service) -> None:
        self._request = request
        self._service = service
        # Here, not at each delta: an engine that has failed has neither.
        self._tokenizer, self._eos_token_ids = service.engine.tokenizer, service.engine.model_config.eos_token_ids
        [generation] = plan.requests
        self._prompt_token_ids = generation.prompt_token_ids
        self._token_ids: list[int] = []
        self._text: list[str] = []
        self._logprobs: list[dict[str, object]] = []
        self._last: SequenceDelta | None = None

    def events(self, update: Iterable[PromptDeltas]) -> bytes:
        """A line for each piece of the text. Without log-probabilities, a delta whose text is held back has none."""
        pieces: list[bytes] = []
        for delta in self._accept(update):
            logprobs = self._take_logprobs()
            if delta.text or logprobs:
                pieces += (dump_line(self._line(delta.text) | logprobs), b"\n")
        return b"".join(pieces)

    def last_events(self) -> bytes:
        return dump_line(self._line("") | self._end()) + b"\n"

    def collect(self, update: Iterable[PromptDeltas]) -> None:
        """Add one update to the whole."""
        for _ in self._accept(update):
            pass

    def body(self) -> bytes:
        return orjson.dumps(self._line("".join(self._text)) | self._take_logprobs() | self._end())

    def _accept(self, update: Iterable[PromptDeltas]) -> Iterable[SequenceDelta]:
        num_top = self._request.num_logprobs
        for _, deltas in update:
            for delta in deltas:
                self._last = delta
                self._text.append(delta.text)
                self._token_ids += delta.token_ids
                if num_top is not None:
                    self._logprobs += [
                        token_with_top(token, self._tokenizer, num_top=num_top) for token in delta.logprobs
                    ]
                yield delta

    def _take_logprobs(self) -> dict[str, object]:
        """The log-probabilities since the last call; empty if there are none."""
        logprobs, self._logprobs = self._logprobs, []
        return {"logprobs": logprobs} if logprobs else {}

    def _line(self, text: str) -> dict[str, object]:
        return begun_answer(self._request, self._service, text) | {"done": False}

    def _end(self) -> dict[str, object]:
        last = self._last
        assert last is not None
        timings = last.timings
        assert timings is not None
        end: dict[str, object] = {
            "done": True,
            "done_reason": "length" if last.finish_reason is FinishReason.LENGTH else "stop",
            "total_duration": _ns(timings.total_s),
            "load_duration": _ns(timings.queue_s),
            "prompt_eval_count": last.num_prompt_tokens,
            "prompt_eval_duration": _ns(timings.prefill_s or 0.0),
            "eval_count": last.num_completion_tokens,
            "eval_duration": _ns(timings.decode_s or 0.0),
        }
        if isinstance(self._request, OllamaGenerateRequest) and not self._request.raw:
            end["context"] = [*self._prompt_token_ids, *self._completion_token_ids(last)]
        return end

    def _completion_token_ids(self, last: SequenceDelta) -> list[int]:
        """Without what ended the text: a stop sequence, which may end within a token, or the end-of-text token."""
        if isinstance(last.stop, str):
            return self._tokenizer.encode("".join(self._text))
        is_ended = self._token_ids and self._token_ids[-1] in self._eos_token_ids
        return self._token_ids[:-1] if is_ended else self._token_ids


def begun_answer(request: Request, service: Service, text: str) -> dict[str, object]:
    """The fields that every answer and line begins with."""
    created_at = datetime.fromtimestamp(service.clock(), UTC).isoformat(timespec="microseconds")
    answer: dict[str, object] = {
        "model": request.model or service.model.shown_name,
        "created_at": created_at.replace("+00:00", "Z"),
    }
    if isinstance(request, OllamaGenerateRequest):
        return answer | {"response": text}
    return answer | {"message": {"role": "assistant", "content": text}}


def load_answer(request: Request, service: Service) -> bytes:
    """The answer to a request without a prompt. Raises NotReadyError while the model loads."""
    assert service.engine.model_config.num_positions
    return orjson.dumps(begun_answer(request, service, "") | {"done": True, "done_reason": "load"})


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
