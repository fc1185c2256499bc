"""Log-probabilities in the shape of OpenAI's completions: four parallel lists."""

from __future__ import annotations

from collections.abc import Iterable

from distilgpt2_api.core.plan import TokenLogprobs
from distilgpt2_api.text.detokenizer import IncrementalDetokenizer
from distilgpt2_api.text.tokenizer import Tokenizer

MIN_LOGPROB = -9999.0
"""JSON has no minus infinity."""

LogprobsLists = dict[str, list[object]]


def empty_lists() -> LogprobsLists:
    return {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}


class LogprobsWriter:
    """Mutable: how far one choice's text has come, in characters."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._detokenizer = IncrementalDetokenizer(tokenizer.token_bytes)
        self._offset = 0

    def write_first(self, token_id: int, lists: LogprobsLists) -> None:
        """The first prompt token, which nothing predicts."""
        self._write(token_id, None, None, lists)

    def write(self, logprobs: Iterable[TokenLogprobs], lists: LogprobsLists) -> None:
        """Append the tokens in their order. `top_logprobs` has the likeliest ones, and always the token itself."""
        for token in logprobs:
            logprob = max(token.logprob, MIN_LOGPROB)
            top = {self._text(token_id): max(value, MIN_LOGPROB) for token_id, value in token.top}
            top.setdefault(self._text(token.token_id), logprob)
            self._write(token.token_id, logprob, top, lists)

    def _write(self, token_id: int, logprob: float | None, top: dict[str, float] | None, lists: LogprobsLists) -> None:
        lists["tokens"].append(self._text(token_id))
        lists["token_logprobs"].append(logprob)
        lists["top_logprobs"].append(top)
        lists["text_offset"].append(self._offset)
        self._offset += len(self._detokenizer.push(token_id))

    def _text(self, token_id: int) -> str:
        # A padded model has tokens beyond its tokenizer's: they have no text.
        return self._tokenizer.token_text(token_id) if token_id < self._tokenizer.vocab_size else ""
