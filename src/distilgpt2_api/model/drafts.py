"""Drafts computed as rows of their own, all of a sequence in one step, and how far they were right.

A draft is right where it is the token that is drawn in its place anyway: random numbers are a function of seed and
position, so what is drawn behind a right draft is what a step of its own would have drawn. (Leviathan et al. 2023,
"Fast inference from transformers via speculative decoding", need more only because their draws are not.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from distilgpt2_api.core.plan import PlanRow, RowResult


def split_drafts(rows: Sequence[PlanRow]) -> list[PlanRow]:
    """Each row, followed by one for each of its drafts that computes it and draws behind it.

    They share a block table. The kernels write the keys and values of a whole step before they read any, so each sees
    the drafts before it. One token a row: several in one would be a prefill to the kernels, which unpack all of the
    sequence's cache for it.
    """
    split: list[PlanRow] = []
    for row in rows:
        drafts = row.draft_token_ids
        if not drafts:
            split.append(row)
            continue
        assert row.is_sampling, "drafts come behind a sequence's last token"
        assert row.num_new_tokens == 1, "behind a row of several the kernels clear the rest of the block"
        assert row.num_prompt_logprobs is None, "its prompt is computed"
        assert row.params.grammar is None, "masks are of one place"
        row_alone = replace(row, draft_token_ids=())
        token_ids = [*row.token_ids, *drafts]
        split.append(row_alone)
        split += (
            replace(row_alone, token_ids=token_ids[: position + 1], num_computed_tokens=position)
            for position in range(len(row.token_ids), len(token_ids))
        )
    return split


def join_drafts(rows: Sequence[PlanRow], results: Sequence[RowResult]) -> list[RowResult]:
    """The results of `rows`, from those of `split_drafts(rows)`: what was drawn behind a wrong draft is dropped."""
    joined: list[RowResult] = []
    following = iter(results)
    for row in rows:
        result = last = next(following)
        accepted: list[RowResult] = []
        is_right = True
        for draft in row.draft_token_ids:
            candidate = next(following)
            is_right = is_right and last.token_id == draft
            if is_right:
                accepted.append(candidate)
                last = candidate
        result.accepted = accepted
        joined.append(result)
    return joined
