"""Verifies drafts (speculative decoding): each draft is a row of its own, all in one step.

A draft is accepted if it equals the token sampled at its position. Random numbers are a function of seed and position,
so the token sampled after an accepted draft is the one that a separate step would have sampled. (Leviathan et al. 2023,
"Fast inference from transformers via speculative decoding", need rejection sampling, because their draws differ.)
"""

from collections.abc import Sequence
from dataclasses import replace

from distilgpt2_api.core.plan import PlanRow, RowResult


def split_drafts(rows: Sequence[PlanRow]) -> list[PlanRow]:
    """Each row, followed by one row for each of its drafts, which computes the draft and samples the next token.

    The rows share a block table. A layer writes the keys and values of the whole step before it reads any, so each row
    sees the drafts before it. Each row has one token, because only a row's last token gets logits.
    """
    split: list[PlanRow] = []
    for row in rows:
        drafts = row.draft_token_ids
        if not drafts:
            split.append(row)
            continue
        assert row.is_sampling, "drafts follow a sequence's last token"
        assert row.num_new_tokens == 1, "drafts follow a decode, not a prefill"
        assert row.num_prompt_logprobs is None, "a sequence with drafts has its prompt computed"
        assert row.params.allows_drafts, "a mask is for one position"
        row_alone = replace(row, draft_token_ids=())
        token_ids = [*row.token_ids, *drafts]
        split.append(row_alone)
        split += (
            replace(row_alone, token_ids=token_ids[: position + 1], num_computed_tokens=position)
            for position in range(len(row.token_ids), len(token_ids))
        )
    return split


def join_drafts(rows: Sequence[PlanRow], results: Sequence[RowResult]) -> list[RowResult]:
    """The results of `rows`, from those of `split_drafts(rows)`. Tokens after a rejected draft are dropped."""
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
