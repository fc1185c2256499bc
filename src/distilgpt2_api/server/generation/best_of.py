"""`best_of`: more sequences are sampled of each prompt than the answer has, and the best are kept."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from distilgpt2_api.core.outputs import SequenceDelta


class BestOf:
    """Mutable: each prompt's sequences until the last has ended. They are not streamed, and have log-probabilities."""

    def __init__(self, *, num_sequences: int, num_kept: int) -> None:
        """Per prompt."""
        self._num_sequences = num_sequences
        self._num_kept = num_kept
        self._ended: dict[int, list[SequenceDelta]] = defaultdict(list)

    def choose(self, prompt_index: int, deltas: Sequence[SequenceDelta]) -> Sequence[SequenceDelta]:
        """The sequences with the highest mean log-probability per token, best first and numbered from 0.

        Empty until the prompt's last sequence has ended. If all are kept, there is no choice: `deltas` as they are.
        """
        if self._num_sequences == self._num_kept:
            return deltas
        ended = self._ended[prompt_index]
        ended += deltas
        if len(ended) < self._num_sequences:
            return ()
        best = ranked(self._ended.pop(prompt_index))[: self._num_kept]
        return [replace(delta, index=index) for index, delta in enumerate(best)]


def ranked(deltas: Iterable[SequenceDelta]) -> list[SequenceDelta]:
    """A prompt's sequences by mean log-probability, the highest first; of equals the first sampled."""
    return sorted(deltas, key=lambda delta: (-mean_logprob(delta), delta.index))


def mean_logprob(delta: SequenceDelta) -> float:
    """Per completion token of a sequence's only delta; 0 for a sequence without tokens."""
    return sum(token.logprob for token in delta.logprobs) / max(1, len(delta.logprobs))
