"""Ends a text before its first stop sequence, however the text is cut into pieces."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


class StopMatcher:
    """Mutable: how much of a stop sequence the end of one text may be, by the automaton of Aho and Corasick (1975).

    The match is the stop sequence that is complete first; of those complete with the same character, the longest. So it
    does not depend on where the pieces are cut, and each character is looked at once. What is held back is the longest
    end of the text that is a stop sequence's beginning.
    """

    def __init__(self, stop: Sequence[str], *, is_included: bool) -> None:
        """`stop`: none of them empty. `is_included`: the text shown ends after the stop sequence, not before it."""
        self._is_included = is_included
        self._next: list[dict[str, int]] = [{}]
        """By state, 0 being the start: which state a character that continues a beginning leads to."""
        self._fallback = [0]
        """By state: that of the longest shorter end of it that is a beginning as well."""
        self._depth = [0]
        """By state: how many characters it has matched, and so holds back."""
        self._matched: list[str | None] = [None]
        """By state: the longest stop sequence that it completes."""
        for text in stop:
            self._insert(text)
        self._link()
        self._state = 0
        self._held = ""

    def push(self, text: str) -> tuple[str, str | None]:
        """The text that may be shown now, and the stop sequence that ended it, if one did. Push no more after that."""
        if not self._state and self._next[0].keys().isdisjoint(text):
            return text, None  # nearly always: no stop sequence begins here
        state, held = self._state, self._held
        for index, character in enumerate(text):
            state = self._step(state, character)
            stop = self._matched[state]
            if stop is not None:
                shown = held + text[: index + 1]
                self._held = ""
                return (shown if self._is_included else shown[: -len(stop)]), stop
        seen = held + text
        num_shown = len(seen) - self._depth[state]
        self._state, self._held = state, seen[num_shown:]
        return seen[:num_shown], None

    def flush(self) -> str:
        """At the end of the text without a match: what was held back."""
        held, self._held, self._state = self._held, "", 0
        return held

    def _step(self, state: int, character: str) -> int:
        while True:
            following = self._next[state].get(character)
            if following is not None:
                return following
            if not state:
                return 0
            state = self._fallback[state]

    def _insert(self, text: str) -> None:
        state = 0
        for character in text:
            following = self._next[state].get(character)
            if following is None:
                following = len(self._next)
                self._next[state][character] = following
                self._next.append({})
                self._fallback.append(0)
                self._depth.append(self._depth[state] + 1)
                self._matched.append(None)
            state = following
        self._matched[state] = text

    def _link(self) -> None:
        """Set the fallbacks, breadth first: a state's is known before those of the states that follow it."""
        queue = deque(self._next[0].values())
        while queue:
            state = queue.popleft()
            fallback = self._fallback[state]
            if self._matched[state] is None:
                self._matched[state] = self._matched[fallback]
            for character, following in self._next[state].items():
                self._fallback[following] = self._step(fallback, character)
                queue.append(following)
