"""More completions than were asked for, and of them the best."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace

from distilgpt2_api.core.outputs import SequenceDelta
from distilgpt2_api.server.generation.generation import Generation, PromptDeltas


class BestOf:
    """Of each prompt's sequences those with the highest mean log-probability per token: best first, numbered from 0.

    The generation's requests are not streamed, and have log-probabilities.
    """

    def __init__(
        self, generation: Generation, *, num_sequences: int, num_kept: int, on_drop: Callable[[int], None]
    ) -> None:
        """`num_sequences` each prompt has. `on_drop` hears how many completion tokens were drawn in vain."""
        self._generation = generation
        self._num_sequences = num_sequences
        self._num_kept = num_kept
        self._on_drop = on_drop

    def abort(self) -> None:
        self._generation.abort()

    async def hand_overs(self) -> AsyncGenerator[list[PromptDeltas]]:
        """Each prompt's choice when its last sequence has ended. Raises as the generation does."""
        ended: dict[int, list[SequenceDelta]] = defaultdict(list)
        async with aclosing(self._generation.hand_overs()) as hand_overs:
            async for hand_over in hand_overs:
                for prompt_index, deltas in hand_over:
                    ended[prompt_index] += deltas
                    if len(ended[prompt_index]) == self._num_sequences:
                        yield [(prompt_index, self._choose(ended.pop(prompt_index)))]

    def _choose(self, deltas: Sequence[SequenceDelta]) -> tuple[SequenceDelta, ...]:
        best_first = ranked(deltas)
        self._on_drop(sum(delta.num_completion_tokens for delta in best_first[self._num_kept :]))
        # All but the first find the prompt's blocks in the cache, where the first has just left them.
        num_cached_tokens = min(delta.num_cached_tokens for delta in deltas)
        return tuple(
            replace(delta, index=index, num_cached_tokens=num_cached_tokens)
            for index, delta in enumerate(best_first[: self._num_kept])
        )


def ranked(deltas: Iterable[SequenceDelta]) -> list[SequenceDelta]:
    """A prompt's sequences by their mean log-probability, the highest first; of equals the first drawn."""
    return sorted(deltas, key=lambda delta: (-mean_logprob(delta), delta.index))


def mean_logprob(delta: SequenceDelta) -> float:
    """Per completion token, of a sequence's only delta; 0 where it has no token."""
    return sum(token.logprob for token in delta.logprobs) / max(1, len(delta.logprobs))
