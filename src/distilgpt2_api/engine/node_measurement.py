"""Measures the node curve of this machine and a model on the engine, within seconds."""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from distilgpt2_api.capacity.node_curve import DecodeStep, NodeCurve
from distilgpt2_api.core.config import BLOCK_SIZE, EngineConfig
from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.engine import Engine
from distilgpt2_api.scheduling.blocks import num_blocks_for

NUM_TIMED_STEPS = 24
"""Timed steps for each number of sequences. The median counts."""
MIN_POSITIONS = NUM_TIMED_STEPS + 2
NUM_ROUNDS = 2
"""The first round compiles the kernels for each number of rows. Only the last one counts."""
MIN_PREFILLS = 8
NUM_TIMED_PREFILLS = 5
"""Timed prefills in each round. The median counts, because other processes can disturb a single one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeMeasurement:
    """Measures an engine without a thread or other work, whose prefix cache holds everything that it computes."""

    engine: Engine
    config: EngineConfig
    num_prompt_tokens: int
    num_completion_tokens: int
    """Lengths of the planned load: steps take longer with long contexts."""
    clock: Callable[[], float] = time.perf_counter

    def __post_init__(self) -> None:
        """Raises InvalidRequestError if the model's context is too short for the timed steps."""
        if self._num_positions < MIN_POSITIONS:
            raise InvalidRequestError(
                f"a model with {self._num_positions} positions can't be measured: it needs at least {MIN_POSITIONS}"
            )

    @property
    def num_parts(self) -> int:
        """Number of calls of `on_measured` by `run`."""
        return NUM_ROUNDS * (len(self._counts()) + 1)

    def run(self, *, model: str, measured_on: str, on_measured: Callable[[int], None]) -> NodeCurve:
        """Times decode steps of 1, 2, 4, … sequences up to the maximum that runs or that the KV cache holds, then
        prefills.

        `on_measured` is called with 1 after each part, for a progress bar.
        """
        chance = random.Random(0)  # noqa: S311 - no secret: prompts without a common prefix
        kv_cache_tokens = self.engine.num_free_blocks * BLOCK_SIZE
        step_s: dict[int, float] = {}
        prefill_tokens_per_s = 0.0
        for _ in range(NUM_ROUNDS):
            for num_sequences in self._counts():
                step_s[num_sequences] = self._decode_step_s(num_sequences, chance)
                on_measured(1)
            prefill_tokens_per_s = statistics.median(
                self._prefill_tokens_per_s(chance) for _ in range(NUM_TIMED_PREFILLS)
            )
            on_measured(1)
        return NodeCurve(
            measured_on=measured_on,
            model=model,
            precision=str(self.config.precision),
            num_positions=self._num_positions,
            kv_cache_tokens=kv_cache_tokens,
            max_step_tokens=self.config.max_step_tokens,
            prefill_tokens_per_s=prefill_tokens_per_s,
            decode_steps=tuple(DecodeStep(num_sequences=count, step_s=step_s[count]) for count in self._counts()),
        )

    @property
    def _num_positions(self) -> int:
        return self.engine.config.num_positions

    @property
    def _context_tokens(self) -> int:
        """The context in the middle of a completion: whole blocks and a token. Once cached, all start in one step."""
        middle = min(self.num_prompt_tokens + self.num_completion_tokens // 2, self._num_positions - MIN_POSITIONS)
        return middle // BLOCK_SIZE * BLOCK_SIZE + 1

    def _counts(self) -> list[int]:
        """1, 2, 4, … and the maximum number of sequences that run at once."""
        num_blocks_each = num_blocks_for(self._context_tokens + NUM_TIMED_STEPS + 1)
        most = max(1, min(self.config.max_num_sequences, self.engine.num_free_blocks // num_blocks_each))
        return sorted({*(1 << power for power in range(most.bit_length())), most})

    def _decode_step_s(self, num_sequences: int, chance: random.Random) -> float:
        """Median duration of steps in which every sequence decodes and none prefills or ends."""
        prompts = [self._draw_prompt(self._context_tokens, chance) for _ in range(num_sequences)]
        self._add(prompts, max_tokens=1)
        self._run_until_idle()
        request_ids = self._add(prompts, max_tokens=NUM_TIMED_STEPS + 1)
        num_started = 0
        while num_started < num_sequences:
            num_started += len(self.engine.step().started)
        times_s: list[float] = []
        while len(times_s) < NUM_TIMED_STEPS - 1:
            begin_s = self.clock()
            self.engine.step()
            times_s.append(self.clock() - begin_s)
        for request_id in request_ids:
            self.engine.abort(request_id)
        return statistics.median(times_s)

    def _prefill_tokens_per_s(self, chance: random.Random) -> float:
        """Rate of several prompts in succession, which fill whole steps. Each samples one token."""
        num_tokens_each = min(self.num_prompt_tokens, self._num_positions - 1)
        num_prompts = max(MIN_PREFILLS, 2 * self.config.max_step_tokens // num_tokens_each)
        self._add([self._draw_prompt(num_tokens_each, chance) for _ in range(num_prompts)], max_tokens=1)
        begin_s = self.clock()
        self._run_until_idle()
        return num_prompts * num_tokens_each / (self.clock() - begin_s)

    def _run_until_idle(self) -> None:
        while self.engine.has_work:
            self.engine.step()

    def _draw_prompt(self, num_tokens: int, chance: random.Random) -> tuple[int, ...]:
        return tuple(chance.randrange(self.engine.config.vocab_size) for _ in range(num_tokens))

    def _add(self, prompts: list[tuple[int, ...]], *, max_tokens: int) -> list[str]:
        params = SamplingParams(max_tokens=max_tokens, top_k=50, ignore_eos=True, seed=0)
        request_ids = [f"measurement {index}" for index in range(len(prompts))]
        for request_id, prompt in zip(request_ids, prompts, strict=True):
            self.engine.add(
                GenerationRequest(request_id=request_id, prompt_token_ids=prompt, params=params),
                submitted_s=time.monotonic(),
            )
        return request_ids
