"""Decides which rows of a step get draft tokens, and how many."""

from collections.abc import Sequence

from distilgpt2_api.core.plan import PlanRow
from distilgpt2_api.scheduling.blocks import num_blocks_for
from distilgpt2_api.scheduling.drafter import Drafter
from distilgpt2_api.scheduling.sequence import Sequence as ScheduledSequence
from distilgpt2_api.scheduling.sequence_pool import SequencePool

MAX_DRAFTING_SEQUENCES = 4
"""Maximum for sequences decoded greedily. A sampled sequence gets drafts only if it runs alone: sampled text repeats
itself less, and a wrong draft slows down the other sequences of the step."""
MAX_TOKENS = 16
"""Maximum tokens of a step with drafts. A step of 16 tokens reads the weights once, like a step of one, and takes two
to three times as long (decision 0026). So each of four sequences gets up to three draft tokens."""


def add_drafts(
    rows: Sequence[PlanRow],
    sequences: Sequence[ScheduledSequence],
    sequence_pool: SequencePool,
    *,
    max_draft_tokens: int,
    budget: int,
) -> None:
    """Add draft tokens to the rows: at most `max_draft_tokens` to each and `budget` to all.

    No row gets any if there are many rows or one of them is a prefill, because such a step takes long anyway. A row
    gets none if its parameters don't allow drafts. Blocks are reserved only while every sequence can
    still get one, and unused ones are released before the next plan: no sequence waits or is preempted for a draft.
    """
    num_rows = len(rows)
    if num_rows > MAX_DRAFTING_SEQUENCES or not all(row.is_sampling and row.num_new_tokens == 1 for row in rows):
        return
    if num_rows > 1 and not all(row.params.is_greedy for row in rows):
        return
    max_draft_tokens = min(max_draft_tokens, MAX_TOKENS // num_rows - 1)
    for row, sequence in zip(rows, sequences, strict=True):
        # A step samples one token more than it has drafts.
        max_tokens = min(max_draft_tokens, budget, sequence.max_num_tokens - len(sequence.token_ids) - 1)
        if max_tokens <= 0 or not sequence.params.allows_drafts:
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
