"""How well a model predicts a text: every token scored once, in sliding windows, with at least half a context before it
(past the first window).
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow, StepPlan, StepResult
from distilgpt2_api.engine.scoring import bits_per_byte_of, perplexity_of
from distilgpt2_api.scheduling.blocks import num_blocks_for
from distilgpt2_api.text.tokenizer import Tokenizer
from distilgpt2_api.text.tokenizer_files import END_OF_TEXT

NO_DRAWS = SamplingParams(max_tokens=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Documents as one stream of tokens: mark, document, mark, document, …, mark."""

    token_ids: Sequence[int]
    num_bytes: int
    """UTF-8 bytes of the documents, marks left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """`token_ids[first : end]` of a stream, of which those from `first_scored` on are scored."""

    first: int
    first_scored: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    perplexity: float
    """Per token: e to the mean of the negative log-likelihoods."""
    bits_per_byte: float
    """Bits of all scored tokens over the documents' bytes: comparable between tokenizers."""
    num_tokens: int
    """Scored."""
    tokens_per_s: float
    """Scored tokens a second: each costs about two, for half of a window is context."""


def read_stream(text: str, tokenizer: Tokenizer, config: ModelConfig) -> Stream:
    """A file's documents, with the model's own end of text before, between and after them.

    In the file they are separated by that token's text, or by GPT-2's `<|endoftext|>`, as files for other models are.
    """
    end_of_text_id = tokenizer.end_of_text_id(config)
    marks = [END_OF_TEXT]
    if end_of_text_id in tokenizer.special_token_ids:
        marks.append(tokenizer.decode([end_of_text_id]))
    return join_documents(split_documents(text, marks), tokenizer.encode_batch, end_of_text_id)


def split_documents(text: str, marks: Sequence[str]) -> list[str]:
    """The documents between marks, without white space around them; text without marks is one document."""
    documents = re.split("|".join(map(re.escape, marks)), text)
    return [document.strip() for document in documents if document.strip()]


def join_documents(
    documents: Sequence[str], encode: Callable[[Sequence[str]], Sequence[Sequence[int]]], end_of_text_id: int | None
) -> Stream:
    """`end_of_text_id` stands before, between and after the documents; a model without one gets them joined bare."""
    mark = [] if end_of_text_id is None else [end_of_text_id]
    token_ids = list(mark)
    for document_ids in encode(documents):
        token_ids += [*document_ids, *mark]
    return Stream(token_ids=token_ids, num_bytes=sum(len(document.encode()) for document in documents))


def sliding_windows(num_tokens: int, num_positions: int) -> Iterator[Window]:
    """Windows that score each of tokens 1 … num_tokens - 1 once, half a context apart.

    A window has a token more than the model has positions: its last token is scored, and never computed.
    """
    first_scored = 1
    for first in range(0, num_tokens, max(1, num_positions // 2)):
        end = min(first + num_positions + 1, num_tokens)
        if first_scored >= end:
            return
        yield Window(first=first, first_scored=first_scored, end=end)
        first_scored = end


def evaluate(
    run: Callable[[StepPlan], StepResult],
    stream: Stream,
    *,
    num_positions: int,
    max_step_tokens: int,
    on_scored: Callable[[int], None],
    clock: Callable[[], float] = time.perf_counter,
) -> Evaluation:
    """Score the stream with a runner's `run`, whose KV cache holds `num_positions` tokens at least.

    `on_scored` gets the number of tokens of each window, for a progress bar.
    """
    started_s = clock()
    logprob = 0.0
    num_scored = 0
    for window in sliding_windows(len(stream.token_ids), num_positions):
        log_likelihoods = list(_score_window(run, stream.token_ids, window, max_step_tokens))
        assert len(log_likelihoods) == window.end - window.first_scored
        logprob += math.fsum(log_likelihoods)
        num_scored += len(log_likelihoods)
        on_scored(len(log_likelihoods))
    return Evaluation(
        perplexity=perplexity_of(logprob, num_scored),
        bits_per_byte=bits_per_byte_of(logprob, stream.num_bytes),
        num_tokens=num_scored,
        tokens_per_s=num_scored / (clock() - started_s),
    )


def _score_window(
    run: Callable[[StepPlan], StepResult], stream_ids: Sequence[int], window: Window, max_step_tokens: int
) -> Iterator[float]:
    """Log-likelihoods of the window's scored tokens, in order; steps of at most `max_step_tokens` tokens."""
    token_ids = stream_ids[window.first : window.end]
    block_ids = range(num_blocks_for(len(token_ids)))
    first_telling = window.first_scored - window.first - 1  # this position's logits score the first token
    # Context costs no logits: it is computed apart from what is scored.
    for begin, end, is_telling in ((0, first_telling, False), (first_telling, len(token_ids) - 1, True)):
        for start in range(begin, end, max_step_tokens):
            row = PlanRow(
                sequence_id=0,
                token_ids=token_ids,
                num_prompt_tokens=len(token_ids),
                num_computed_tokens=start,
                num_new_tokens=min(max_step_tokens, end - start),
                block_ids=block_ids,
                params=NO_DRAWS,
                seed=0,
                is_sampling=False,
                num_prompt_logprobs=0 if is_telling else None,
            )
            result = run(StepPlan(rows=[row])).rows[0]
            yield from (scored.logprob for scored in result.prompt_logprobs)
