"""Deltas to OpenAI's `text_completion` objects: one whole, or a chunk for each delta."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence

import orjson

from distilgpt2_api.core.outputs import SequenceDelta
from distilgpt2_api.observability.request_record import RequestRecord
from distilgpt2_api.server.generation.best_of import BestOf
from distilgpt2_api.server.generation.plan import GenerationPlan
from distilgpt2_api.server.generation.prompts import EncodedPrompt
from distilgpt2_api.server.http.responses.stream_formats import dump_line
from distilgpt2_api.server.protocols.openai.completions.logprobs import (
    LogprobsLists,
    LogprobsWriter,
    empty_lists,
    prompt_logprobs_by_id,
)
from distilgpt2_api.server.protocols.openai.completions.schema import CompletionRequest
from distilgpt2_api.server.protocols.openai.envelope import OpenAiWriter
from distilgpt2_api.server.service import Service
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

KIND = "text_completion"


class CompletionWriter(OpenAiWriter):
    def __init__(
        self, request: CompletionRequest, plan: GenerationPlan, service: Service, record: RequestRecord
    ) -> None:
        super().__init__(
            request,
            service,
            record,
            answer_id=f"cmpl-{request.request_id or uuid.uuid4().hex}",
            kind=KIND,
            chunk_kind=KIND,
            num_prompt_tokens=plan.num_prompt_tokens,
        )
        self._request = request
        self._num_choices = request.num_choices
        prompts_of_choices = (prompt for prompt in plan.prompts for _ in range(self._num_choices))
        self._choices = [
            CompletionChoice(index, prompt, request, service.engine.tokenizer)
            for index, prompt in enumerate(prompts_of_choices)
        ]
        self._is_text_only = (
            request.logprobs is None and not request.return_token_ids and not request.has_usage_in_chunks
        )
        self._text_tail = b',"logprobs":null,"finish_reason":null}' + self.chunk_tail
        """Ends a chunk that is neither a choice's first nor its last, if these `_is_text_only`."""
        self._best_of = BestOf(num_sequences=plan.requests[0].num_sequences, num_kept=self._num_choices)

    def add_chunks(self, prompt_index: int, delta: SequenceDelta, pieces: list[bytes]) -> None:
        request, choice = self._request, self._choice(prompt_index, delta)
        if self._is_text_only and choice.has_begun and delta.finish_reason is None:  # nearly always
            if delta.text:
                pieces += (self.chunk_head, choice.chunk_head, dump_line(delta.text), self._text_tail)
            return
        is_first = not choice.has_begun
        text, logprobs = choice.accept(delta)
        finish_reason = delta.finish_reason
        if not (text or logprobs or finish_reason or request.return_token_ids or request.has_usage_in_chunks):
            return  # All is held back: half a character, or the possible beginning of a stop sequence.
        pieces += (self.chunk_head, choice.chunk_head, dump_line(text), b',"logprobs":')
        pieces.append(b"null" if logprobs is None else dump_line(logprobs))
        if request.return_token_ids:
            pieces += (b',"token_ids":', orjson.dumps(delta.token_ids))
            if is_first:
                pieces += (b',"prompt_token_ids":', orjson.dumps(choice.prompt.token_ids))
        if finish_reason is None:
            pieces.append(b',"finish_reason":null}')
        else:
            pieces += (b',"finish_reason":"', finish_reason.value.encode(), b'","stop_reason":')
            pieces += (dump_line(delta.stop), b"}")
        pieces.append(self.chunk_tail)

    def choices(self, prompt_index: int, deltas: Sequence[SequenceDelta]) -> Iterable[dict[str, object]]:
        best = self._best_of.choose(prompt_index, deltas)
        return [self._choice(prompt_index, delta).whole(delta) for delta in best]

    def _choice(self, prompt_index: int, delta: SequenceDelta) -> CompletionChoice:
        return self._choices[prompt_index * self._num_choices + delta.index]


class CompletionChoice:
    """Mutable: one choice so far. `accept` is the only writer of its attributes."""

    def __init__(self, index: int, prompt: EncodedPrompt, request: CompletionRequest, tokenizer: Tokenizer) -> None:
        self.index = index
        self.prompt = prompt
        self.chunk_head = b'{"index":%d,"text":' % index
        """Begins the JSON of each of its chunks."""
        self.has_begun = False
        self._request = request
        self._tokenizer = tokenizer
        self._logprobs_writer: LogprobsWriter | None = None
        if request.logprobs is not None:
            self._logprobs_writer = LogprobsWriter(
                tokenizer,
                num_top=request.logprobs,
                is_by_id=bool(request.return_tokens_as_token_ids),
                skips_special_tokens=request.skip_special_tokens is not False,
            )

    def accept(self, delta: SequenceDelta) -> tuple[str, LogprobsLists | None]:
        """The text and log-probabilities that a delta adds; the first one also adds the prompt's if it is echoed."""
        is_echo = bool(self._request.echo) and not self.has_begun
        self.has_begun = True
        text = self._prompt_text() + delta.text if is_echo else delta.text
        writer = self._logprobs_writer
        if writer is None:
            return text, None
        lists = empty_lists()
        if is_echo:
            writer.write_prompt(self.prompt, delta.prompt_logprobs or (), lists)
        writer.write(delta.logprobs, lists)
        return text, lists

    def whole(self, delta: SequenceDelta) -> dict[str, object]:
        """The choice as one object, from its sequence's only delta."""
        text, logprobs = self.accept(delta)
        assert delta.finish_reason is not None
        body: dict[str, object] = {
            "index": self.index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": delta.finish_reason.value,
            "stop_reason": delta.stop,
        }
        if self._request.return_token_ids:
            body |= {"token_ids": delta.token_ids, "prompt_token_ids": self.prompt.token_ids}
        if self._request.prompt_logprobs is not None:
            body["prompt_logprobs"] = prompt_logprobs_by_id(
                delta.prompt_logprobs or (), num_top=self._request.prompt_logprobs, tokenizer=self._tokenizer
            )
        return body

    def _prompt_text(self) -> str:
        return self._tokenizer.decode(self.prompt.token_ids) if self.prompt.text is None else self.prompt.text
