"""Draft tokens, and how many of them are proposed."""

from __future__ import annotations

from itertools import pairwise

import pytest

from distilgpt2_api.scheduling.drafter import MAX_BACKOFF_TOKENS, Drafter

PHRASE = [1, 2, 3, 4, 5]
"""A text that is long enough to be recognised when it occurs again."""


def trusting(token_ids: list[int]) -> Drafter:
    """A drafter whose budget has grown to the maximum."""
    drafter = Drafter(token_ids)
    drafter.note(num_drafted=8, num_accepted=8)
    return drafter


def test_the_continuation_of_an_earlier_occurrence_is_proposed() -> None:
    assert trusting([*PHRASE, 6, 7, 8, 9, *PHRASE]).propose(4) == [6, 7, 8, 9]


def test_the_last_of_several_occurrences_counts() -> None:
    assert trusting([*PHRASE, 6, 0, *PHRASE, 7, 0, *PHRASE]).propose(2) == [7, 0]


@pytest.mark.parametrize(
    ("token_ids", "draft"),
    [([5, 7, 7, 7, 7, 7, 7], [7, 7, 7, 7, 7]), ([9, 1, 2, 3, 1, 2, 3, 1, 2], [3, 1, 2, 3, 1])],
)
def test_a_period_is_continued(token_ids: list[int], draft: list[int]) -> None:
    assert trusting(token_ids).propose(5) == draft


@pytest.mark.parametrize(
    "token_ids", [[1], [7] * 5, PHRASE, [*PHRASE, 6, 2, 3, 4, 5], [*PHRASE, 6, *PHRASE[::-1]], [*PHRASE, *PHRASE[:4]]]
)
def test_without_a_repetition_there_is_no_draft(token_ids: list[int]) -> None:
    assert trusting(token_ids).propose(8) == []


def test_it_follows_a_growing_sequence_and_repeats_its_proposal() -> None:
    """A plan may be made twice, if its step fails."""
    token_ids = [*PHRASE, 6]
    drafter = trusting(token_ids)
    assert drafter.propose(4) == []
    token_ids += PHRASE

    assert drafter.propose(4) == [6, 1, 2, 3]
    assert drafter.propose(2) == [6, 1]
    token_ids.append(7)
    assert drafter.propose(4) == []
    token_ids += PHRASE
    assert drafter.propose(4) == [7, 1, 2, 3]


def test_the_budget_doubles_while_drafts_are_accepted_and_falls_to_what_was_accepted() -> None:
    drafter = Drafter([7] * 40)
    lengths = []
    for num_accepted in (3, 6, 5, 5, 1, 3):
        draft = drafter.propose(15)
        lengths.append(len(draft))
        drafter.note(num_drafted=len(draft), num_accepted=num_accepted)

    assert lengths == [3, 6, 12, 5, 10, 3]


def test_an_accepted_short_draft_does_not_reduce_the_budget() -> None:
    """Near the end of a context, drafts are short."""
    drafter = trusting([7] * 40)
    drafter.note(num_drafted=2, num_accepted=2)

    assert len(drafter.propose(15)) == 15


def test_rejected_drafts_become_rare() -> None:
    """Few of a thousand tokens that only look like repetitions get a draft, until a draft is accepted."""
    token_ids = [1, 2] * 4
    drafter = Drafter(token_ids)
    guessed_at = []
    while len(token_ids) < 1_000:
        if drafter.propose(15):
            guessed_at.append(len(token_ids))
            drafter.note(num_drafted=1, num_accepted=0)
        token_ids.append(1 + len(token_ids) % 2)

    gaps = [after - before for before, after in pairwise(guessed_at)]
    assert gaps[:6] == [1, 2, 4, 8, 16, 32]
    assert set(gaps[6:]) == {MAX_BACKOFF_TOKENS}

    while not drafter.propose(15):
        token_ids.append(1 + len(token_ids) % 2)
    drafter.note(num_drafted=1, num_accepted=1)
    assert drafter.propose(15)
