"""Which rows of a step get drafts, and how many tokens of them: only where the step is short without."""

from __future__ import annotations

from collections.abc import Sequence

from distilgpt2_api.core.plan import PlanRow
from distilgpt2_api.scheduling.blocks import num_blocks_for
from distilgpt2_api.scheduling.drafter import Drafter
from distilgpt2_api.scheduling.sequence import Sequence as ScheduledSequence
from distilgpt2_api.scheduling.sequence_pool import SequencePool

MAX_DRAFTING_SEQUENCES = 4
"""Decoded greedily; one alone may be drawn as it likes. Drawn text repeats itself less, and beside others a wrong draft
costs them, too."""
MAX_TOKENS = 16
"""Of all rows, drafts and all: a step of one token reads all weights, and a step of 16 reads them once, too, and takes
two or three times as long (decision 0014). So each of four sequences has three at most guessed for it."""


def add_drafts(
    rows: Sequence[PlanRow],
    sequences: Sequence[ScheduledSequence],
    sequence_pool: SequencePool,
    *,
    max_draft_tokens: int,
    budget: int,
) -> None:
    """Give the rows drafts, at most `max_draft_tokens` each and `budget` together.

    Nothing where there are too many rows, or one of them is no decode: then the step takes long enough as it is. A row
    that a grammar guides gets none, for masks are made for one place. Blocks are taken only while every sequence can
    still have one, and taken back before the next plan where the tokens were wrong: nobody waits or is preempted for a
    guess.
    """
    num_rows = len(rows)
    if num_rows > MAX_DRAFTING_SEQUENCES or not all(row.is_sampling and row.num_new_tokens == 1 for row in rows):
        return
    if num_rows > 1 and not all(row.params.is_greedy for row in rows):
        return
    max_draft_tokens = min(max_draft_tokens, MAX_TOKENS // num_rows - 1)
    for row, sequence in zip(rows, sequences, strict=True):
        # One token more than there are drafts is drawn.
        max_tokens = min(max_draft_tokens, budget, sequence.max_num_tokens - len(sequence.token_ids) - 1)
        if max_tokens <= 0 or sequence.params.grammar is not None:
            continue
        if sequence.drafter is None:
            sequence.drafter = Drafter(sequence.token_ids)
        draft = sequence.drafter.propose(max_tokens)
        if not draft:
            continue
        if not sequence_pool.reserve_draft_blocks(sequence, num_blocks_for(len(sequence.token_ids) + len(draft))):
            continue
        row.block_ids = sequence.block_ids
        row.draft_token_ids = draft
        budget -= len(draft)
