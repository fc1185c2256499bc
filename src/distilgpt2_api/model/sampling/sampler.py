"""Samples and scores a step's rows. The kernels draw, in the call that computes the step.

Only rows with logits processors need Python: the kernels hand their logits over, the processors edit them, and a second
call draws from these.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.errors import GenerationError
from distilgpt2_api.core.plan import NOTHING_TO_DRAW, PlanRow, RowResult, TokenLogprobs
from distilgpt2_api.model.kernels.draws import DrawBatch, scoring_draws
from distilgpt2_api.model.sampling.sampling_rules import SamplingRules
from distilgpt2_api.model.step_inputs import StepInputs


class StepKernels(Protocol):
    """Computes steps and draws: `KernelEngine`."""

    @property
    def vocab_size(self) -> int: ...

    def step(self, inputs: StepInputs, draws: DrawBatch) -> NDArray[np.float32]: ...

    def draw(self, draws: DrawBatch, logits: NDArray[np.float32], raw: NDArray[np.float32]) -> None: ...


class Sampler:
    """Keeps the last step's rules, because consecutive decode steps have the same rows.

    A row's token depends only on its logits, parameters, seed and position, not on other rows.
    """

    def __init__(self, kernels: StepKernels, *, eos_token_ids: Sequence[int] = ()) -> None:
        self._kernels = kernels
        self._eos_token_ids = eos_token_ids
        self._ids: list[int] = []
        """The sequence id of each row that the rules are for; -1 for a row that doesn't sample."""
        self._rules = SamplingRules.of([], vocab_size=kernels.vocab_size, eos_token_ids=eos_token_ids)

    def step(self, inputs: StepInputs, rows: Sequence[PlanRow]) -> list[RowResult]:
        """Computes the rows' new tokens; samples and scores as they ask. Results are in row order.

        A row gets an `error` if its logits have NaN or only -inf, or if its grammar can't compute a mask; the other
        rows are not affected.
        """
        rules = self._find_rules(rows)
        draws = rules.draws
        for index in rules.mirostat:
            draws.largest_surprisals[index] = rows[rules.order[index]].mirostat_mu
        scored = [index for index, row in enumerate(rows) if row.num_prompt_logprobs is not None]
        scores = _PromptScores.of(rows, scored, inputs.token_begins) if scored else None
        if scores is not None:
            draws = draws.followed_by(scores.draws(self._kernels.vocab_size))
        logits = self._kernels.step(inputs, draws)
        num_draws, num_edited = len(rules.order), len(rules.processors)
        results = drawn = _read_results(draws, num_draws)
        if num_edited:
            drawn[:num_edited] = self._draw_edited(rules, logits, [rows[index] for index in rules.order[:num_edited]])
        for index in rules.mirostat:
            surprisals = rules.edited_draws.surprisals if index < num_edited else draws.surprisals
            drawn[index].mirostat_mu = _follow(rows[rules.order[index]], float(surprisals[index]))
        if not rules.is_in_order:
            results = [RowResult() for _ in rows]
            for index, result in zip(rules.order, drawn, strict=True):
                results[index] = result
        if scores is not None:
            scores.add_to(results, _read_logprobs(draws, range(num_draws, len(draws))))
        return results

    def _find_rules(self, rows: Sequence[PlanRow]) -> SamplingRules:
        ids = [row.sequence_id if row.is_sampling else -1 for row in rows]
        if ids != self._ids:
            self._rules = SamplingRules.of(rows, vocab_size=self._kernels.vocab_size, eos_token_ids=self._eos_token_ids)
            self._ids = ids
        return self._rules

    def _draw_edited(
        self, rules: SamplingRules, logits: NDArray[np.float32], rows: Sequence[PlanRow]
    ) -> list[RowResult]:
        """Runs the processors of the edited `rows` on their `logits` (R, V), then draws."""
        has_logprobs = any(row.params.num_logprobs is not None for row in rows)
        raw = logits.copy() if has_logprobs else logits
        failures = {}
        for index, (processors, row) in enumerate(zip(rules.processors, rows, strict=True)):
            try:
                processors.apply(logits[index], row)
            except GenerationError as error:
                failures[index] = RowResult(error=str(error))
        draws = rules.edited_draws
        draws.positions[:] = [len(row.token_ids) for row in rows]
        draws.largest_surprisals[:] = rules.draws.largest_surprisals[: len(rows)]
        self._kernels.draw(draws, logits, raw)
        return [failures.get(index, result) for index, result in enumerate(_read_results(draws, len(rows)))]


@dataclass(slots=True)
class _PromptScores:
    """Mutable: the prompt tokens that a step scores. The last token of a chunk scores the next one's first."""

    tokens: list[int] = field(default_factory=list)
    """Index in the step of the token before each."""
    given: list[int] = field(default_factory=list)
    nums_top: list[int] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)
    """By row: where its scores end."""

    @classmethod
    def of(cls, rows: Sequence[PlanRow], scored: Sequence[int], begins: Sequence[int]) -> _PromptScores:
        """Scores of the rows with indices `scored`. `begins` (R + 1,): where each row's tokens begin in the step."""
        scores = cls()
        for index in scored:
            row = rows[index]
            assert row.num_prompt_logprobs is not None
            first = row.num_computed_tokens
            last = min(first + row.num_new_tokens, row.num_prompt_tokens - 1)
            scores.tokens += range(begins[index], begins[index] + last - first)
            scores.given += row.token_ids[first + 1 : last + 1]
            scores.nums_top += [row.num_prompt_logprobs] * (last - first)
            scores.ends[index] = len(scores.given)
        return scores

    def draws(self, vocab_size: int) -> NDArray[np.void]:
        return scoring_draws(self.tokens, self.given, self.nums_top, vocab_size=vocab_size)

    def add_to(self, results: Sequence[RowResult], logprobs: Iterable[TokenLogprobs]) -> None:
        """`logprobs`: of all given tokens."""
        whole = list(logprobs)
        begin = 0
        for index, end in self.ends.items():
            results[index].prompt_logprobs = whole[begin:end]
            begin = end


def _follow(row: PlanRow, surprisal: float) -> float:
    """Mirostat 2 (Basu et al. 2021): the largest surprisal of the next token, after one of `surprisal` bits."""
    assert row.mirostat_mu is not None, "a row with mirostat has it"
    return row.mirostat_mu - row.params.mirostat_eta * (surprisal - row.params.mirostat_tau)


def _read_results(draws: DrawBatch, num_draws: int) -> list[RowResult]:
    """Results of the first `num_draws` draws."""
    token_ids = draws.token_ids[:num_draws].tolist()
    results = [RowResult(token_id=token_id) for token_id in token_ids]
    if draws.has_logprobs:
        nums_top = draws.nums_top[:num_draws].tolist()
        for result, num_top, logprobs in zip(results, nums_top, _read_logprobs(draws, range(num_draws)), strict=True):
            result.logprobs = logprobs if num_top >= 0 else None
    if min(token_ids, default=0) < 0:
        for index, token_id in enumerate(token_ids):
            if token_id < 0:
                results[index] = RowResult(error=_describe(draws.largest[index]))
    return results


def _read_logprobs(draws: DrawBatch, indices: range) -> Iterator[TokenLogprobs]:
    part = slice(indices.start, indices.stop)
    for token_id, logprob, num_top, ids, values in zip(
        draws.token_ids[part].tolist(),
        draws.logprobs[part].tolist(),
        np.maximum(draws.nums_top[part], 0).tolist(),
        draws.top_ids[part],
        draws.top_logprobs[part],
        strict=True,
    ):
        yield TokenLogprobs(
            token_id=token_id,
            logprob=logprob,
            top_ids=array("i", ids[:num_top].tobytes()),
            top_logprobs=array("d", values[:num_top].tobytes()),
        )


def _describe(largest_logit: float) -> str:
    return NOTHING_TO_DRAW if largest_logit == -np.inf else "the model's logits are not numbers"
