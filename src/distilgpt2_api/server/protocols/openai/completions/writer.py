"""Deltas to OpenAI's `text_completion` objects: one whole, or a chunk for each delta."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter

import orjson

from distilgpt2_api.core.outputs import SequenceDelta
from distilgpt2_api.server.generation.generation import PromptDeltas
from distilgpt2_api.server.generation.prompts import EncodedPrompt
from distilgpt2_api.server.http.stream_formats import dump_line
from distilgpt2_api.server.protocols.openai.completions.logprobs import (
    LogprobsLists,
    LogprobsWriter,
    empty_lists,
    prompt_logprobs_by_id,
)
from distilgpt2_api.server.protocols.openai.envelope import DONE
from distilgpt2_api.text.tokenizer import Tokenizer


class CompletionWriter:
    """Mutable: one request's choices. Streamed or whole, each field of a choice has the same content."""

    def __init__(
        self,
        *,
        completion_id: str,
        model: str,
        system_fingerprint: str,
        created: int,
        prompts: Sequence[EncodedPrompt],
        shape: CompletionShape,
        tokenizer: Tokenizer,
    ) -> None:
        self._shape = shape
        self._num_prompt_tokens = sum(len(prompt.token_ids) for prompt in prompts)
        self._num_dropped_tokens = 0
        envelope = {
            "id": completion_id,
            "object": "text_completion",
            "created": created,
            "model": model,
            "system_fingerprint": system_fingerprint,
        }
        self._head = orjson.dumps(envelope)[:-1] + b',"choices":['
        self._event_head = b"data: " + self._head
        # Where a usage chunk comes, the specification wants `usage: null` in all the others.
        self._event_tail = b'],"usage":null}\n\n' if shape.has_usage_chunk else b"]}\n\n"
        prompts_of_choices = (prompt for prompt in prompts for _ in range(shape.num_choices_per_prompt))
        self._choices = [
            CompletionChoice(index, prompt, shape, tokenizer) for index, prompt in enumerate(prompts_of_choices)
        ]
        self._bodies: list[dict[str, object]] = []

    def count_dropped(self, num_tokens: int) -> None:
        """Completion tokens that were drawn for no choice: usage has them."""
        self._num_dropped_tokens += num_tokens

    # ---- a stream

    def events(self, hand_over: Iterable[PromptDeltas]) -> bytes:
        """The events of one hand-over, to be written at once; empty where there is nothing to show."""
        pieces: list[bytes] = []
        for prompt_index, deltas in hand_over:
            for delta in deltas:
                self._add_event(prompt_index, delta, pieces)
        return b"".join(pieces)

    def last_events(self) -> bytes:
        """Usage, if it is wanted, and the end."""
        if not self._shape.has_usage_chunk:
            return DONE
        return self._event_head + b'],"usage":' + orjson.dumps(self._usage()) + b"}\n\n" + DONE

    def _add_event(self, prompt_index: int, delta: SequenceDelta, pieces: list[bytes]) -> None:
        shape = self._shape
        choice = self._choice(prompt_index, delta)
        is_first = not choice.is_begun
        text, logprobs = choice.accept(delta)
        finish_reason = delta.finish_reason
        if not (text or logprobs or finish_reason or shape.has_token_ids or shape.has_usage_in_chunks):
            return  # All held back: half a character, or what may become a stop sequence.
        pieces += (self._event_head, choice.chunk_head, dump_line(text), b',"logprobs":')
        pieces.append(b"null" if logprobs is None else dump_line(logprobs))
        if shape.has_token_ids:
            pieces += (b',"token_ids":', orjson.dumps(delta.token_ids))
            if is_first:
                pieces += (b',"prompt_token_ids":', orjson.dumps(choice.prompt.token_ids))
        if finish_reason is None:
            pieces.append(b',"finish_reason":null}')
        else:
            pieces += (b',"finish_reason":"', finish_reason.value.encode(), b'","stop_reason":')
            pieces += (dump_line(delta.stop), b"}")
        if shape.has_usage_in_chunks:
            pieces += (b'],"usage":', orjson.dumps(self._usage()), b"}\n\n")
        else:
            pieces.append(self._event_tail)

    # ---- a whole

    def collect(self, hand_over: Iterable[PromptDeltas]) -> None:
        """Take one hand-over into the whole: the only delta of each of its sequences."""
        for prompt_index, deltas in hand_over:
            self._bodies += [self._choice(prompt_index, delta).whole(delta) for delta in deltas]

    def body(self) -> bytes:
        """The whole answer."""
        choices = sorted(self._bodies, key=itemgetter("index"))
        return self._head[:-1] + orjson.dumps(choices) + b',"usage":' + orjson.dumps(self._usage()) + b"}"

    # ---- both

    def _choice(self, prompt_index: int, delta: SequenceDelta) -> CompletionChoice:
        return self._choices[prompt_index * self._shape.num_choices_per_prompt + delta.index]

    def _usage(self) -> dict[str, object]:
        """Tokens so far. A prompt counts once, however many completions it gets."""
        num_completion_tokens = sum(choice.num_completion_tokens for choice in self._choices) + self._num_dropped_tokens
        firsts = self._choices[:: self._shape.num_choices_per_prompt]
        return {
            "prompt_tokens": self._num_prompt_tokens,
            "completion_tokens": num_completion_tokens,
            "total_tokens": self._num_prompt_tokens + num_completion_tokens,
            "prompt_tokens_details": {"cached_tokens": sum(choice.num_cached_tokens for choice in firsts)},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionShape:
    """What the answer is to contain."""

    num_choices_per_prompt: int
    has_echo: bool
    num_logprobs: int | None
    """Likeliest tokens listed for each token of a choice's text; None: no log-probabilities."""
    num_prompt_logprobs: int | None
    """The same for each choice's `prompt_logprobs`. Not in a stream."""
    has_token_ids: bool
    has_tokens_by_id: bool
    """Log-probabilities name tokens by their ids."""
    skips_special_tokens: bool
    """In the completion, that is: a prompt is echoed as it is."""
    has_usage_chunk: bool
    has_usage_in_chunks: bool


class CompletionChoice:
    """Mutable: as far as it has come. Read what the attributes name; `accept` is their only writer."""

    def __init__(self, index: int, prompt: EncodedPrompt, shape: CompletionShape, tokenizer: Tokenizer) -> None:
        self.index = index
        self.prompt = prompt
        self.chunk_head = b'{"index":%d,"text":' % index
        """Of every chunk's JSON."""
        self.is_begun = False
        self.num_completion_tokens = 0
        self.num_cached_tokens = 0
        self._shape = shape
        self._tokenizer = tokenizer
        self._logprobs_writer: LogprobsWriter | None = None
        if shape.num_logprobs is not None:
            self._logprobs_writer = LogprobsWriter(
                tokenizer,
                num_top=shape.num_logprobs,
                is_by_id=shape.has_tokens_by_id,
                skips_special_tokens=shape.skips_special_tokens,
            )

    def accept(self, delta: SequenceDelta) -> tuple[str, LogprobsLists | None]:
        """The text and log-probabilities that a delta adds; with the first one comes what the prompt has of them."""
        is_echo = self._shape.has_echo and not self.is_begun
        self.is_begun = True
        self.num_completion_tokens = delta.num_completion_tokens
        self.num_cached_tokens = delta.num_cached_tokens
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
        """The choice as one object, of a sequence's only delta."""
        text, logprobs = self.accept(delta)
        assert delta.finish_reason is not None
        body: dict[str, object] = {
            "index": self.index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": delta.finish_reason.value,
            "stop_reason": delta.stop,
        }
        if self._shape.has_token_ids:
            body |= {"token_ids": delta.token_ids, "prompt_token_ids": self.prompt.token_ids}
        if self._shape.num_prompt_logprobs is not None:
            body["prompt_logprobs"] = prompt_logprobs_by_id(
                delta.prompt_logprobs or (), num_top=self._shape.num_prompt_logprobs, tokenizer=self._tokenizer
            )
        return body

    def _prompt_text(self) -> str:
        return self._tokenizer.decode(self.prompt.token_ids) if self.prompt.text is None else self.prompt.text
