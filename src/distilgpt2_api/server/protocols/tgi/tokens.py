"""A sequence's tokens as TGI shows them: each with its part of the text."""

from collections.abc import Sequence
from dataclasses import dataclass

from distilgpt2_api.core.outputs import SequenceDelta
from distilgpt2_api.core.plan import TokenLogprobs
from distilgpt2_api.engine.scoring import MIN_LOGPROB
from distilgpt2_api.text.detokenization.detokenizer import IncrementalDetokenizer
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer


@dataclass(slots=True)
class ShownToken:
    """One sampled token. Mutable until `TgiTokens` returns it."""

    token_id: int
    text: str
    """The token's part of the text; for a special token, its own text."""
    is_special: bool
    """Not part of the text."""
    logprobs: TokenLogprobs | None


class TgiTokens:
    """Mutable: one sequence's tokens as they arrive.

    The texts of the tokens that are not special, joined, are the generated text, which ends early if a stop sequence
    ends within a token. A character of several tokens is the text of the last of them.
    """

    def __init__(self, tokenizer: Tokenizer, *, eos_token_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._eos_token_ids = frozenset(eos_token_ids)
        self._detokenizer = IncrementalDetokenizer(tokenizer.token_bytes)
        self._held: list[ShownToken] = []
        self._texts: list[str] = []
        self._num_surplus = 0
        """Characters of the tokens beyond the text that the engine has returned."""

    def accept(self, delta: SequenceDelta) -> list[ShownToken]:
        """The tokens that are complete: all but the last, if it ends within a character."""
        is_stopped = isinstance(delta.stop, str)
        tokens = self._held
        for position, token_id in enumerate(delta.token_ids):
            tokens.append(self._show(token_id, tokens))
            if delta.logprobs:
                tokens[-1].logprobs = delta.logprobs[position]
        self._num_surplus -= len(delta.text)
        self._held = []
        if delta.finish_reason is None:
            if self._detokenizer.is_within_character:
                self._held.append(tokens.pop())
        elif not is_stopped:
            self._end_character(tokens)
        elif tokens[-1].is_special:
            self._num_surplus = 0  # The special token's text is not part of the text anyway.
        self._texts += [token.text for token in tokens if not token.is_special]
        return tokens

    def generated_text(self) -> str:
        """After the last delta: the text, including the stop sequence that ended it."""
        text = "".join(self._texts)
        return text[: len(text) - self._num_surplus]

    def _show(self, token_id: int, before: list[ShownToken]) -> ShownToken:
        if token_id in self._eos_token_ids or token_id in self._tokenizer.special_token_ids:
            self._end_character(before)
            text = self._tokenizer.decode([token_id])
            if token_id not in self._eos_token_ids:
                self._num_surplus += len(text)  # The engine's text has no end-of-text token.
            return ShownToken(token_id, text, is_special=True, logprobs=None)
        text = self._detokenizer.push(token_id)
        self._num_surplus += len(text)
        return ShownToken(token_id, text, is_special=False, logprobs=None)

    def _end_character(self, tokens: list[ShownToken]) -> None:
        """Nothing can complete the character any more: its last token's text ends with U+FFFD."""
        if self._detokenizer.is_within_character:
            text = self._detokenizer.flush()
            self._num_surplus += len(text)
            tokens[-1].text += text


def token_body(token: ShownToken) -> dict[str, object]:
    """TGI's `Token`."""
    assert token.logprobs is not None
    return _token_body(token.token_id, token.text, token.logprobs.logprob, is_special=token.is_special)


def top_token_bodies(token: ShownToken, tokenizer: Tokenizer, *, num_top: int) -> list[dict[str, object]]:
    """The likeliest tokens at its position."""
    assert token.logprobs is not None
    return [
        _token_body(token_id, tokenizer.decode([token_id]), logprob, is_special=token_id in tokenizer.special_token_ids)
        for token_id, logprob in token.logprobs.top[:num_top]
    ]


def _token_body(token_id: int, text: str, logprob: float, *, is_special: bool) -> dict[str, object]:
    return {"id": token_id, "text": text, "logprob": max(logprob, MIN_LOGPROB), "special": is_special}
