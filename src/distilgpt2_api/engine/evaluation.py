"""Measures how well a model predicts a text: perplexity over sliding windows.

Every token is scored once, after the first window with at least half a context before it.
"""

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
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer
from distilgpt2_api.text.tokenization.tokenizer_files import END_OF_TEXT

NO_SAMPLING = SamplingParams(max_tokens=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Documents as one stream of tokens, with the end of text before, between and after them."""

    token_ids: Sequence[int]
    num_bytes: int
    """UTF-8 bytes of the documents, without the ends of text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The tokens `token_ids[first:end]` of a stream. Those from `first_scored` on are scored."""

    first: int
    first_scored: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    perplexity: float
    """Per token: exp of the mean negative log-likelihood."""
    bits_per_byte: float
    """Bits of all scored tokens per byte of the documents. Comparable between tokenizers."""
    num_tokens: int
    """Scored tokens."""
    tokens_per_s: float
    """Scored tokens per second. Each takes about two computed ones, because half of a window is context."""


def read_stream(text: str, tokenizer: Tokenizer, config: ModelConfig) -> Stream:
    """Tokenizes the documents of a text, with the model's end of text before, between and after them.

    In the text, that token's text or GPT-2's `<|endoftext|>` separates documents.
    """
    end_of_text_id = tokenizer.end_of_text_id(config)
    marks = [END_OF_TEXT]
    if end_of_text_id in tokenizer.special_token_ids:
        marks.append(tokenizer.decode([end_of_text_id]))
    return join_documents(split_documents(text, marks), tokenizer.encode_batch, end_of_text_id)


def split_documents(text: str, marks: Sequence[str]) -> list[str]:
    """The documents between marks, stripped of white space. A text without marks is one document."""
    documents = re.split("|".join(map(re.escape, marks)), text)
    return [document.strip() for document in documents if document.strip()]


def join_documents(
    documents: Sequence[str], encode: Callable[[Sequence[str]], Sequence[Sequence[int]]], end_of_text_id: int | None
) -> Stream:
    """Encodes the documents, with `end_of_text_id` before, between and after them if the model has one."""
    mark = [] if end_of_text_id is None else [end_of_text_id]
    token_ids = list(mark)
    for document_ids in encode(documents):
        token_ids += [*document_ids, *mark]
    return Stream(token_ids=token_ids, num_bytes=sum(len(document.encode()) for document in documents))


def sliding_windows(num_tokens: int, num_positions: int) -> Iterator[Window]:
    """Windows half a context apart that score each of tokens 1 … num_tokens - 1 once.

    A window has one token more than the model has positions: its last token is scored but not computed.
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
    """Scores the stream with a runner's `run`. Its KV cache holds at least `num_positions` tokens.

    `on_scored` is called with the number of tokens of each window, for a progress bar.
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
    """Log-likelihoods of the window's scored tokens, in order, in steps of at most `max_step_tokens` tokens."""
    token_ids = stream_ids[window.first : window.end]
    block_ids = range(num_blocks_for(len(token_ids)))
    first_scoring = window.first_scored - window.first - 1  # logits of this position score the first token
    # The context is computed in steps of its own, without logits.
    for begin, end, is_scoring in ((0, first_scoring, False), (first_scoring, len(token_ids) - 1, True)):
        for start in range(begin, end, max_step_tokens):
            row = PlanRow(
                sequence_id=0,
                token_ids=token_ids,
                num_prompt_tokens=len(token_ids),
                num_computed_tokens=start,
                num_new_tokens=min(max_step_tokens, end - start),
                block_ids=block_ids,
                params=NO_SAMPLING,
                seed=0,
                is_sampling=False,
                num_prompt_logprobs=0 if is_scoring else None,
            )
            result = run(StepPlan(rows=[row])).rows[0]
            yield from (scored.logprob for scored in result.prompt_logprobs)
