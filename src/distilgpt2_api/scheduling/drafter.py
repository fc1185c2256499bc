"""Guesses at a sequence's next tokens: where it repeats itself, what came before comes again.

Prompt lookup (Saxena, 2023): names out of the prompt, code, tables, and greedy decoding that goes round in circles.
"""

from __future__ import annotations

from collections.abc import Sequence

NGRAM_TOKENS = 5
"""What must occur twice before the text is taken to repeat itself. Shorter ones are found more often and are more often
wrong, which text that is drawn, not decoded greedily, pays for (decision 0014)."""
MIN_DRAFT_TOKENS = 3
"""Of a step's price most is for its having any draft at all."""
MAX_PAUSE_TOKENS = 64


class Drafter:
    """Owner of one sequence's n-grams, and of how far its repetitions are trusted. O(1) a token.

    Drafts begin short and grow twofold while they are right to the last; after one that is not, as many are trusted as
    were right. Where none was, it pauses, for twice as many tokens each time, so that text without repetitions costs
    nothing to speak of.
    """

    __slots__ = ("_backoff", "_budget", "_follower", "_num_indexed", "_resumes_at", "_token_ids")

    def __init__(self, token_ids: Sequence[int]) -> None:
        """`token_ids` are the sequence's own, and may grow."""
        self._token_ids = token_ids
        self._follower: dict[tuple[int, ...], int] = {}
        """By n-gram: the place behind its last occurrence but the one that ends the sequence."""
        self._num_indexed = NGRAM_TOKENS
        """Tokens whose n-grams before them are in the index."""
        self._budget = MIN_DRAFT_TOKENS
        self._backoff = 1
        self._resumes_at = 0

    def propose(self, max_tokens: int) -> list[int]:
        """The tokens that followed the last ones when they last occurred; empty where they never did, or in a pause.

        An occurrence that reaches up to the end is a circle, and goes on.
        """
        token_ids, num_tokens = self._token_ids, len(self._token_ids)
        if num_tokens < max(self._resumes_at, NGRAM_TOKENS):
            return []
        for place in range(self._num_indexed, num_tokens):
            self._follower[tuple(token_ids[place - NGRAM_TOKENS : place])] = place
        self._num_indexed = max(self._num_indexed, num_tokens)
        place = self._follower.get(tuple(token_ids[-NGRAM_TOKENS:]), num_tokens)
        if place == num_tokens:
            return []
        num_drafted = min(max_tokens, self._budget)
        draft = list(token_ids[place : place + num_drafted])
        period = num_tokens - place
        while len(draft) < num_drafted:
            draft.append(draft[-period])
        return draft

    def note(self, *, num_drafted: int, num_accepted: int) -> None:
        """What came of the last proposal; the sequence has not grown since."""
        if num_accepted == num_drafted:
            self._budget = max(self._budget, 2 * num_accepted)
        else:
            self._budget = max(MIN_DRAFT_TOKENS, num_accepted)
        if num_accepted:
            self._backoff = 1
        else:
            self._resumes_at = len(self._token_ids) + self._backoff
            self._backoff = min(2 * self._backoff, MAX_PAUSE_TOKENS)
