"""Log-probabilities as in OpenAI's completions, four parallel lists, and as in vLLM's `prompt_logprobs`."""

from collections.abc import Iterable, Sequence

from distilgpt2_api.core.plan import TokenLogprobs
from distilgpt2_api.engine.scoring import MIN_LOGPROB
from distilgpt2_api.server.generation.prompts import EncodedPrompt
from distilgpt2_api.text.detokenization.detokenizer import IncrementalDetokenizer
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

LogprobsLists = dict[str, list[object]]


def empty_lists() -> LogprobsLists:
    return {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}


class LogprobsWriter:
    """Mutable: the length of one choice's text so far, in characters."""

    def __init__(self, tokenizer: Tokenizer, *, num_top: int, is_by_id: bool, skips_special_tokens: bool) -> None:
        """`num_top`: number of likeliest tokens to list. `is_by_id`: tokens are written `token_id:123`.

        `skips_special_tokens`: the completion's special tokens are listed but not part of the text.
        """
        self._tokenizer = tokenizer
        self._num_top = num_top
        self._is_by_id = is_by_id
        self._detokenizer = IncrementalDetokenizer(tokenizer.token_bytes)
        self._hidden_token_ids = tokenizer.special_token_ids if skips_special_tokens else frozenset()
        self._offset = 0

    def write_prompt(self, prompt: EncodedPrompt, logprobs: Iterable[TokenLogprobs], lists: LogprobsLists) -> None:
        """Append the prompt's tokens. The first has no log-probability, because no token precedes it.

        Tokens that the tokenizer put around the prompt's text are listed but not part of the text.
        """
        own = range(len(prompt.frame.before), len(prompt.token_ids) - len(prompt.frame.after))
        self._write(prompt.token_ids[0], None, None, lists, is_hidden=0 not in own)
        for position, token in enumerate(logprobs, 1):
            self._write_scored(token, lists, is_hidden=position not in own)

    def write(self, logprobs: Iterable[TokenLogprobs], lists: LogprobsLists) -> None:
        """Append the completion's tokens in order."""
        for token in logprobs:
            self._write_scored(token, lists, is_hidden=token.token_id in self._hidden_token_ids)

    def _write_scored(self, token: TokenLogprobs, lists: LogprobsLists, *, is_hidden: bool) -> None:
        """`top_logprobs` has the likeliest tokens, and always the token itself.

        Of two tokens with the same text, the likelier is listed, so the largest value is always the likeliest token's.
        """
        logprob = max(token.logprob, MIN_LOGPROB)
        top: dict[str, float] = {}
        for token_id, value in token.top[: self._num_top]:
            top.setdefault(self._text(token_id), max(value, MIN_LOGPROB))
        top.setdefault(self._text(token.token_id), logprob)
        self._write(token.token_id, logprob, top, lists, is_hidden=is_hidden)

    def _write(
        self,
        token_id: int,
        logprob: float | None,
        top: dict[str, float] | None,
        lists: LogprobsLists,
        *,
        is_hidden: bool,
    ) -> None:
        lists["tokens"].append(self._text(token_id))
        lists["token_logprobs"].append(logprob)
        lists["top_logprobs"].append(top)
        lists["text_offset"].append(self._offset)
        if not is_hidden:
            self._offset += len(self._detokenizer.push(token_id))

    def _text(self, token_id: int) -> str:
        return f"token_id:{token_id}" if self._is_by_id else self._tokenizer.token_text(token_id)


def prompt_logprobs_by_id(
    logprobs: Sequence[TokenLogprobs], *, num_top: int, tokenizer: Tokenizer
) -> list[dict[str, dict[str, object]] | None]:
    """As in vLLM: null for the first prompt token, then by token id the token itself and the `num_top` likeliest.

    `rank` is 1 for the likeliest, and null for a token outside the listed ones.
    """
    positions: list[dict[str, dict[str, object]] | None] = [None]
    for token in logprobs:
        top = token.top[:num_top]
        ranks = {token_id: rank for rank, (token_id, _) in enumerate(top, 1)}
        positions.append(
            {
                str(token_id): {
                    "logprob": max(logprob, MIN_LOGPROB),
                    "rank": ranks.get(token_id),
                    "decoded_token": tokenizer.token_text(token_id),
                }
                for token_id, logprob in ((token.token_id, token.logprob), *top)
            }
        )
    return positions
