"""One choice of a completion, as it comes: its text, tokens and log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from distilgpt2_api.core.outputs import SequenceDelta
from distilgpt2_api.server.logprobs_writer import LogprobsLists, LogprobsWriter, empty_lists, prompt_logprobs_by_id
from distilgpt2_api.server.prompts import EncodedPrompt
from distilgpt2_api.text.tokenizer import Tokenizer


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
