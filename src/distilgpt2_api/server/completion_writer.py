"""Deltas to OpenAI's `text_completion` objects: one whole, or a chunk for each delta."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import orjson

from distilgpt2_api.core.outputs import SequenceDelta
from distilgpt2_api.server.generation import PromptDeltas
from distilgpt2_api.server.logprobs_writer import LogprobsLists, LogprobsWriter, empty_lists
from distilgpt2_api.server.prompts import EncodedPrompt
from distilgpt2_api.server.sse import DONE, dump_line
from distilgpt2_api.text.detokenizer import IncrementalDetokenizer
from distilgpt2_api.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionShape:
    """What the answer is to contain."""

    num_choices_per_prompt: int
    has_echo: bool
    has_logprobs: bool
    has_usage_chunk: bool = False
    has_usage_in_chunks: bool = False


@dataclass(slots=True)
class ChoiceState:
    """Mutable: one choice as far as it has come."""

    logprobs_writer: LogprobsWriter | None
    chunk_head: bytes
    """`{"index":…,"text":`"""
    is_begun: bool = False
    num_completion_tokens: int = 0
    num_cached_tokens: int = 0
    text: list[str] = field(default_factory=list)
    logprobs: LogprobsLists | None = None
    finish_reason: str | None = None


class CompletionWriter:
    """Mutable: one request's choices. Streamed or whole, each field of a choice has the same content."""

    def __init__(
        self,
        *,
        completion_id: str,
        model: str,
        created: int,
        prompts: Sequence[EncodedPrompt],
        shape: CompletionShape,
        tokenizer: Tokenizer,
    ) -> None:
        self._prompts = prompts
        self._shape = shape
        self._tokenizer = tokenizer
        self._num_prompt_tokens = sum(len(prompt.token_ids) for prompt in prompts)
        envelope = {"id": completion_id, "object": "text_completion", "created": created, "model": model}
        self._head = orjson.dumps(envelope)[:-1] + b',"choices":['
        self._event_head = b"data: " + self._head
        # Where a usage chunk comes, the specification wants `usage: null` in all the others.
        self._event_tail = b'],"usage":null}\n\n' if shape.has_usage_chunk else b"]}\n\n"
        self._choices = [
            ChoiceState(LogprobsWriter(tokenizer) if shape.has_logprobs else None, b'{"index":%d,"text":' % index)
            for index in range(len(prompts) * shape.num_choices_per_prompt)
        ]

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
        choice, text, logprobs = self._accept(prompt_index, delta)
        finish_reason = delta.finish_reason
        if not (text or logprobs or finish_reason or self._shape.has_usage_in_chunks):
            return  # All held back: half a character, or what may become a stop sequence.
        pieces.append(self._event_head)
        pieces.append(choice.chunk_head)
        pieces.append(dump_line(text))
        pieces.append(b',"logprobs":')
        pieces.append(b"null" if logprobs is None else dump_line(logprobs))
        pieces.append(b',"finish_reason":')
        pieces.append(b"null}" if finish_reason is None else b'"%s"}' % finish_reason.value.encode())
        if self._shape.has_usage_in_chunks:
            pieces.append(b'],"usage":' + orjson.dumps(self._usage()) + b"}\n\n")
        else:
            pieces.append(self._event_tail)

    # ---- a whole

    def collect(self, hand_over: Iterable[PromptDeltas]) -> None:
        """Take one hand-over into the whole."""
        for prompt_index, deltas in hand_over:
            for delta in deltas:
                choice, text, logprobs = self._accept(prompt_index, delta)
                choice.text.append(text)
                if delta.finish_reason is not None:
                    choice.finish_reason = delta.finish_reason.value
                if logprobs is None:
                    continue
                if choice.logprobs is None:
                    choice.logprobs = empty_lists()
                for name, values in logprobs.items():
                    choice.logprobs[name] += values

    def body(self) -> bytes:
        """The whole answer."""
        choices = [
            {
                "index": index,
                "text": "".join(choice.text),
                "logprobs": choice.logprobs,
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(self._choices)
        ]
        return self._head[:-1] + orjson.dumps(choices) + b',"usage":' + orjson.dumps(self._usage()) + b"}"

    # ---- both

    def _accept(self, prompt_index: int, delta: SequenceDelta) -> tuple[ChoiceState, str, LogprobsLists | None]:
        """The choice that a delta belongs to, and what it adds to it."""
        choice = self._choices[prompt_index * self._shape.num_choices_per_prompt + delta.index]
        choice.num_completion_tokens = delta.num_completion_tokens
        choice.num_cached_tokens = delta.num_cached_tokens
        text = delta.text
        is_echo = self._shape.has_echo and not choice.is_begun
        choice.is_begun = True
        if is_echo:
            text = self._prompt_text(self._prompts[prompt_index]) + text
        writer = choice.logprobs_writer
        if writer is None:
            return choice, text, None
        lists = empty_lists()
        if is_echo:
            writer.write_first(self._prompts[prompt_index].token_ids[0], lists)
            writer.write(delta.prompt_logprobs or (), lists)
        writer.write(delta.logprobs, lists)
        return choice, text, lists

    def _prompt_text(self, prompt: EncodedPrompt) -> str:
        if prompt.text is not None:
            return prompt.text
        detokenizer = IncrementalDetokenizer(self._tokenizer.token_bytes)
        return "".join(map(detokenizer.push, prompt.token_ids)) + detokenizer.flush()

    def _usage(self) -> dict[str, object]:
        """Tokens so far. A prompt counts once, however many completions it gets."""
        num_completion_tokens = sum(choice.num_completion_tokens for choice in self._choices)
        firsts = self._choices[:: self._shape.num_choices_per_prompt]
        return {
            "prompt_tokens": self._num_prompt_tokens,
            "completion_tokens": num_completion_tokens,
            "total_tokens": self._num_prompt_tokens + num_completion_tokens,
            "prompt_tokens_details": {"cached_tokens": sum(choice.num_cached_tokens for choice in firsts)},
        }
