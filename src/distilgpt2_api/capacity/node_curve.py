"""The node curve: one node's measured speed, as decode step times by number of sequences, and prefill rate."""

from bisect import bisect_left
from dataclasses import dataclass

from distilgpt2_api.core.config import BLOCK_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeStep:
    """A step that computes one token for each of `num_sequences`, and nothing else."""

    num_sequences: int
    step_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCurve:
    """Measured on one machine, for one model in one precision."""

    measured_on: str
    """Processor, cores and date, for people."""
    model: str
    precision: str
    num_positions: int
    """Limit on the tokens of prompt and completion."""
    kv_cache_tokens: int
    """Capacity of the KV cache, for all running sequences together."""
    max_step_tokens: int
    """Limit on the tokens of a step; longer prefills take several."""
    prefill_tokens_per_s: float
    decode_steps: tuple[DecodeStep, ...]
    """Ascending, from one sequence to the most that a node runs."""

    @property
    def max_num_sequences(self) -> int:
        return self.decode_steps[-1].num_sequences

    def num_slots(self, tokens_each: int) -> int:
        """The most concurrent sequences of `tokens_each` tokens, limited by the curve and by the KV cache."""
        blocks_each = -(-tokens_each // BLOCK_SIZE)
        return min(self.max_num_sequences, self.kv_cache_tokens // BLOCK_SIZE // blocks_each)

    def step_s(self, num_sequences: int) -> float:
        """Time of a decode step, linearly interpolated. `num_sequences`: 1 to `max_num_sequences`."""
        index = bisect_left(self.decode_steps, num_sequences, key=lambda step: step.num_sequences)
        above = self.decode_steps[index]
        if above.num_sequences == num_sequences:
            return above.step_s
        below = self.decode_steps[index - 1]
        part = (num_sequences - below.num_sequences) / (above.num_sequences - below.num_sequences)
        return below.step_s + part * (above.step_s - below.step_s)
