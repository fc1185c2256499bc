"""Ends a text before its first stop sequence; the result does not depend on how the text is cut into pieces."""

from array import array
from collections.abc import Sequence

from distilgpt2_api.core.params import SamplingParams


class StopAutomaton:
    """The Aho-Corasick automaton (1975) of stop sequences. Immutable: all sequences of a request share it.

    A state is a prefix of a stop sequence; state 0 is the empty prefix. A state's first continuation is the next state,
    so a character takes 13 to 16 bytes; with a dictionary for each state it would take 400.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        """No stop sequence may be empty."""
        characters = [""]
        self._characters: Sequence[str] = characters
        """By state: the last matched character."""
        self._has_next = bytearray(1)
        """By state: whether the next state continues it."""
        self._forks: dict[tuple[int, str], int] = {}
        """The state after a character, if that is not the next state."""
        self._fallbacks = array("i", [0])
        """By state: the state of its longest proper suffix that is also a prefix of a stop sequence."""
        self.depths = array("i", [0])
        """By state: the number of matched characters."""
        self.num_matched = array("i", [0])
        """By state: the length of the longest stop sequence that it completes, or 0."""
        for text in stop:
            self._insert(text, characters)
        self._characters = "\0" + "".join(characters)  # a string is smaller than the list of its characters
        self._link()
        self.first_characters = frozenset(text[0] for text in stop)

    def step(self, state: int, character: str) -> int:
        """The state after `character`."""
        while True:
            following = self._find_next(state, character)
            if following:
                return following
            if not state:
                return 0
            state = self._fallbacks[state]

    def _find_next(self, state: int, character: str) -> int:
        """The state that continues `state` with `character`, or 0."""
        if self._has_next[state] and self._characters[state + 1] == character:
            return state + 1
        return self._forks.get((state, character), 0)

    def _insert(self, text: str, characters: list[str]) -> None:
        state = 0
        for character in text:
            following = self._find_next(state, character)
            if not following:
                following = len(characters)
                if following == state + 1:
                    self._has_next[state] = True
                else:
                    self._forks[state, character] = following
                characters.append(character)
                self._has_next.append(False)
                self._fallbacks.append(0)
                self.depths.append(self.depths[state] + 1)
                self.num_matched.append(0)
            state = following
        self.num_matched[state] = len(text)

    def _link(self) -> None:
        """Set the fallbacks, breadth first: a state's fallback is known before those of its continuations."""
        following: dict[int, list[int]] = {}
        for (state, _), fork in self._forks.items():
            following.setdefault(state, []).append(fork)
        level = [0]
        while level:
            next_level = []
            for state in level:
                for child in (*([state + 1] if self._has_next[state] else ()), *following.get(state, ())):
                    if state:
                        self._fallbacks[child] = self.step(self._fallbacks[state], self._characters[child])
                    if not self.num_matched[child]:
                        self.num_matched[child] = self.num_matched[self._fallbacks[child]]
                    next_level.append(child)
            level = next_level


def compiled_stop(params: SamplingParams) -> StopAutomaton:
    """The automaton of a request's stop sequences, built once for all of its sequences."""
    return params.derive(StopAutomaton, lambda: StopAutomaton(params.stop))


class StopMatcher:
    """Mutable: the suffix of one text that may be the beginning of a stop sequence.

    The match is the stop sequence that completes first; if several complete with the same character, the longest. So it
    does not depend on where the pieces are cut, and each character is read once. The longest suffix that is a prefix of
    a stop sequence is held back.
    """

    def __init__(self, automaton: StopAutomaton, *, is_included: bool) -> None:
        """`is_included`: the text ends after the stop sequence, not before it."""
        self._automaton = automaton
        self._is_included = is_included
        self._state = 0
        self._held = ""

    def push(self, text: str) -> tuple[str, str | None]:
        """The text that is final now, and the stop sequence that ended the text, if any. Push no more after that."""
        automaton = self._automaton
        if not self._state and automaton.first_characters.isdisjoint(text):
            return text, None  # nearly always: no stop sequence begins here
        state, held = self._state, self._held
        for index, character in enumerate(text):
            state = automaton.step(state, character)
            num_matched = automaton.num_matched[state]
            if num_matched:
                seen = held + text[: index + 1]
                self._held = ""
                stop = seen[-num_matched:]
                return (seen if self._is_included else seen[:-num_matched]), stop
        seen = held + text
        num_shown = len(seen) - automaton.depths[state]
        self._state, self._held = state, seen[num_shown:]
        return seen[:num_shown], None

    def flush(self) -> str:
        """At the end of a text without a match: the held-back text."""
        held, self._held, self._state = self._held, "", 0
        return held
