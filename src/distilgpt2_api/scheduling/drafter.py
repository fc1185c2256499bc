"""Drafts a sequence's next tokens by prompt lookup (Saxena, 2023): it continues an n-gram that occurred before.

This works for names in the prompt, code, tables, and greedy decoding that repeats itself.
"""

from collections.abc import Sequence

NGRAM_TOKENS = 5
"""Length of the n-gram that must occur twice. Shorter n-grams match more often and are wrong more often, which slows
down sampled text (decision 0014)."""
MIN_DRAFT_TOKENS = 3
"""A step with three drafts takes a third longer, one with a single draft an eighth (decision 0026)."""
MAX_BACKOFF_TOKENS = 64


class Drafter:
    """Owns one sequence's n-gram index and draft budget. O(1) per token.

    The budget starts small and doubles after each draft that is accepted whole; after any other draft, it is the number
    of tokens accepted. If no token was accepted, drafting pauses, each time for twice as many tokens, so that text
    without repetitions costs almost nothing.
    """

    __slots__ = ("_backoff", "_budget", "_next_positions", "_num_indexed", "_resumes_at", "_token_ids")

    def __init__(self, token_ids: Sequence[int]) -> None:
        """`token_ids` is the sequence's own list, which grows."""
        self._token_ids = token_ids
        self._next_positions: dict[tuple[int, ...], int] = {}
        """Maps an n-gram to the position after its last occurrence, not counting one at the end of the sequence."""
        self._num_indexed = NGRAM_TOKENS
        """Positions below this have the n-gram before them in the index."""
        self._budget = MIN_DRAFT_TOKENS
        self._backoff = 1
        self._resumes_at = 0

    def propose(self, max_tokens: int) -> list[int]:
        """The tokens that followed the last n-gram's previous occurrence. Empty without one, and during a pause.

        If that text reaches the end of the sequence, the sequence repeats with a period, and so does the draft.
        """
        token_ids, num_tokens = self._token_ids, len(self._token_ids)
        if num_tokens < max(self._resumes_at, NGRAM_TOKENS):
            return []
        for position in range(self._num_indexed, num_tokens):
            self._next_positions[tuple(token_ids[position - NGRAM_TOKENS : position])] = position
        self._num_indexed = max(self._num_indexed, num_tokens)
        position = self._next_positions.get(tuple(token_ids[-NGRAM_TOKENS:]), num_tokens)
        if position == num_tokens:
            return []
        num_drafted = min(max_tokens, self._budget)
        draft = list(token_ids[position : position + num_drafted])
        period = num_tokens - position
        while len(draft) < num_drafted:
            draft.append(draft[-period])
        return draft

    def note(self, *, num_drafted: int, num_accepted: int) -> None:
        """Record how many tokens of the last proposal were accepted, before the sequence grows."""
        if num_accepted == num_drafted:
            self._budget = max(self._budget, 2 * num_accepted)
        else:
            self._budget = max(MIN_DRAFT_TOKENS, num_accepted)
        if num_accepted:
            self._backoff = 1
        else:
            self._resumes_at = len(self._token_ids) + self._backoff
            self._backoff = min(2 * self._backoff, MAX_BACKOFF_TOKENS)
