"""Beam search over one prompt: which beams continue, which have ended, and when the search is done.

The rules are those of `transformers` 5: `generate(num_beams=…, do_sample=False)` finds the same sequences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from distilgpt2_api.core.plan import TokenLogprobs

Candidates = Sequence[tuple[int, float]]
"""Likeliest next tokens and their log-probabilities, best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamOptions:
    """Width and scoring of the search."""

    num_beams: int
    """Beams that are followed at once."""
    length_penalty: float = 1.0
    """A score is the sum of log-probabilities over the length to this power. Above 0 favours long sequences, below 0
    short ones."""
    early_stopping: bool | Literal["never"] = False
    """When to stop after `num_beams` sequences have ended. True: at once. False: when the best live beam, at its
    present length, scores no better than the worst of them. "never": when it can't at any length up to the maximum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beam:
    """One continuation of the prompt that has not ended."""

    logprobs: tuple[TokenLogprobs, ...] = ()
    """One for each token."""
    sum_logprob: float = 0.0

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(token.token_id for token in self.logprobs)

    def extend(self, token: TokenLogprobs) -> Beam:
        return Beam(logprobs=(*self.logprobs, token), sum_logprob=self.sum_logprob + token.logprob)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """A beam that has ended."""

    beam: Beam
    score: float
    """`sum_logprob / length ** length_penalty`; the length counts the token that ended it."""
    ending_token_id: int | None
    """The token that ended it; None if it ended by length."""


class BeamSearch:
    """Mutable state of one prompt's search. Equal scores rank by beam, then by token id."""

    def __init__(
        self,
        options: BeamOptions,
        *,
        max_tokens: int,
        min_tokens: int = 0,
        ending_token_ids: frozenset[int] = frozenset(),
        num_top: int = 0,
    ) -> None:
        """`max_tokens` is at least 1. `ending_token_ids` are banned before `min_tokens` tokens.

        Each token keeps the `num_top` likeliest candidates of its position, for log-probabilities.
        """
        self._options = options
        self._max_tokens = max_tokens
        self._min_tokens = min_tokens
        self._ending_token_ids = ending_token_ids
        self._num_top = num_top
        self._length = 0
        self.beams = [Beam()]
        """The live beams, best first. At the beginning, a single empty one. Read-only for others, like the next two."""
        self.hypotheses: list[Hypothesis] = []
        """The best ended beams, best first; `num_beams` of them when the search is done."""
        self.is_done = False

    @property
    def num_candidates(self) -> int:
        """Number of likeliest tokens that `advance` needs for each beam; fewer only if the vocabulary is smaller.

        If they include every ending token, `num_beams` others are left.
        """
        return self._options.num_beams + len(self._ending_token_ids)

    def advance(self, candidates: Sequence[Candidates]) -> None:
        """Extend the beams. `candidates`: the likeliest next tokens of each of `beams`, in their order."""
        assert not self.is_done
        num_beams = self._options.num_beams
        ranked = self._rank(candidates)
        self._length += 1
        is_last = self._length == self._max_tokens
        survivors: list[Beam] = []
        for rank, (beam_index, token_id, logprob) in enumerate(ranked):
            is_ending = token_id in self._ending_token_ids
            # After the first num_beams ranks, a continuation only fills up the next step: it can't end.
            if rank >= num_beams and (is_last or is_ending or len(survivors) == num_beams):
                continue
            top = candidates[beam_index][: self._num_top]
            beam = self.beams[beam_index].extend(TokenLogprobs.of(token_id, logprob, top))
            if is_last or is_ending:
                score = self._score(beam, self._length)
                self.hypotheses.append(
                    Hypothesis(beam=beam, score=score, ending_token_id=token_id if is_ending else None)
                )
            else:
                survivors.append(beam)
        self.hypotheses.sort(key=lambda hypothesis: -hypothesis.score)  # stable: among equals the earlier comes first
        del self.hypotheses[num_beams:]
        self.beams = survivors
        self.is_done = is_last or not survivors or self._is_settled()

    def _rank(self, candidates: Sequence[Candidates]) -> list[tuple[int, int, float]]:
        """The continuations of all beams, best first, as (beam, token, log-probability of the token)."""
        is_barred = self._length < self._min_tokens
        scored = [
            (-(beam.sum_logprob + logprob), index, token_id, logprob)
            for index, (beam, of_beam) in enumerate(zip(self.beams, candidates, strict=True))
            for token_id, logprob in of_beam
            if not (is_barred and token_id in self._ending_token_ids)
        ]
        scored.sort()
        return [(index, token_id, logprob) for _, index, token_id, logprob in scored]

    def _is_settled(self) -> bool:
        """Whether no live beam can replace a hypothesis."""
        options = self._options
        if len(self.hypotheses) < options.num_beams:
            return False
        if options.early_stopping is True:
            return True
        has_far_view = options.early_stopping == "never" and options.length_penalty > 0
        length = self._max_tokens if has_far_view else self._length
        return self._score(self.beams[0], length) <= self.hypotheses[-1].score

    def _score(self, beam: Beam, length: int) -> float:
        return beam.sum_logprob / math.pow(length, self._options.length_penalty)
