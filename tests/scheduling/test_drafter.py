"""What is guessed, and how far a repetition is trusted."""

from __future__ import annotations

from itertools import pairwise

import pytest

from distilgpt2_api.scheduling.drafter import MAX_BACKOFF_TOKENS, Drafter

PHRASE = [1, 2, 3, 4, 5]
"""Long enough for its return to be a repetition."""


def trusting(token_ids: list[int]) -> Drafter:
    """One that was right often enough to guess as much as it may."""
    drafter = Drafter(token_ids)
    drafter.note(num_drafted=8, num_accepted=8)
    return drafter


def test_what_followed_the_last_tokens_before_is_guessed_to_follow_again() -> None:
    assert trusting([*PHRASE, 6, 7, 8, 9, *PHRASE]).propose(4) == [6, 7, 8, 9]


def test_of_several_occurrences_the_last_one_counts() -> None:
    assert trusting([*PHRASE, 6, 0, *PHRASE, 7, 0, *PHRASE]).propose(2) == [7, 0]


@pytest.mark.parametrize(
    ("token_ids", "draft"),
    [([5, 7, 7, 7, 7, 7, 7], [7, 7, 7, 7, 7]), ([9, 1, 2, 3, 1, 2, 3, 1, 2], [3, 1, 2, 3, 1])],
)
def test_a_circle_goes_on(token_ids: list[int], draft: list[int]) -> None:
    assert trusting(token_ids).propose(5) == draft


@pytest.mark.parametrize(
    "token_ids", [[1], [7] * 5, PHRASE, [*PHRASE, 6, 2, 3, 4, 5], [*PHRASE, 6, *PHRASE[::-1]], [*PHRASE, *PHRASE[:4]]]
)
def test_without_a_repetition_nothing_is_guessed(token_ids: list[int]) -> None:
    assert trusting(token_ids).propose(8) == []


def test_it_follows_a_sequence_that_grows_and_guesses_the_same_when_asked_again() -> None:
    """A plan may be made twice: its step may have been lost."""
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


def test_drafts_grow_while_they_are_right_and_shrink_to_what_was_right() -> None:
    drafter = Drafter([7] * 40)
    lengths = []
    for num_accepted in (3, 6, 5, 5, 1, 3):
        draft = drafter.propose(15)
        lengths.append(len(draft))
        drafter.note(num_drafted=len(draft), num_accepted=num_accepted)

    assert lengths == [3, 6, 12, 5, 10, 3]


def test_a_short_draft_that_is_right_does_not_unlearn_longer_ones() -> None:
    """The last tokens of a context have room for few."""
    drafter = trusting([7] * 40)
    drafter.note(num_drafted=2, num_accepted=2)

    assert len(drafter.propose(15)) == 15


def test_drafts_that_are_wrong_become_rare() -> None:
    """Of a thousand tokens, each of which looks like a repetition and is none, next to none is worth a guess; one that
    is right again ends that.
    """
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
