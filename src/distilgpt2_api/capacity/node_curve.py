"""What one node can do, as measured: how long its decode steps take at so many sequences, and how fast it prefills."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from distilgpt2_api.core.config import BLOCK_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeStep:
    """One new token for each of `num_sequences`, and nothing else."""

    num_sequences: int
    step_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCurve:
    """Measured on one machine, for one model in one precision; says so itself."""

    measured_on: str
    """Processor, cores, date: for people."""
    model: str
    precision: str
    num_positions: int
    """Tokens that prompt and completion may have together."""
    kv_cache_tokens: int
    """That the KV cache holds, of all running sequences together."""
    max_step_tokens: int
    """Tokens that one step computes at most: longer prefills take several."""
    prefill_tokens_per_s: float
    decode_steps: tuple[DecodeStep, ...]
    """From one sequence to as many as a node runs, ascending."""

    @property
    def max_num_sequences(self) -> int:
        return self.decode_steps[-1].num_sequences

    def num_slots(self, tokens_each: int) -> int:
        """Sequences of `tokens_each` tokens that run at once: as many as were measured, or as the KV cache holds."""
        blocks_each = -(-tokens_each // BLOCK_SIZE)
        return min(self.max_num_sequences, self.kv_cache_tokens // BLOCK_SIZE // blocks_each)

    def step_s(self, num_sequences: int) -> float:
        """Seconds of a decode step, between measured points on the straight line; 1 to `max_num_sequences`."""
        index = bisect_left(self.decode_steps, num_sequences, key=lambda step: step.num_sequences)
        above = self.decode_steps[index]
        if above.num_sequences == num_sequences:
            return above.step_s
        below = self.decode_steps[index - 1]
        part = (num_sequences - below.num_sequences) / (above.num_sequences - below.num_sequences)
        return below.step_s + part * (above.step_s - below.step_s)
