"""A runner without kernels, whose output is given in advance."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from distilgpt2_api.core.config import EngineConfig, ModelConfig, Precision
from distilgpt2_api.core.plan import PlanRow, RowResult, StepPlan, StepResult, TokenLogprobs

END_OF_TEXT = 256
CONFIG = ModelConfig(
    vocab_size=257, num_positions=256, num_layers=1, num_heads=1, width=8, inner_width=32, eos_token_ids=(END_OF_TEXT,)
)
ENGINE_CONFIG = EngineConfig(
    precision=Precision.F32,
    num_threads=1,
    kv_cache_bytes=64 << 20,
    memory_limit_bytes=1 << 30,
    max_num_sequences=8,
    max_step_tokens=64,
    max_batch_step_tokens=1,
    max_draft_tokens=0,
    is_prefix_caching=True,
    prefix_cache_bytes=64 << 20,
)


@dataclass
class ScriptedRunner:
    """Samples the bytes of `script` after every prompt, then the end of text. `gate` releases steps one by one.

    A token's log-probability is minus its id over 100; the likeliest tokens are ids 0, 1, 2 …
    `on_run` may raise, or inspect the plan.
    """

    script: bytes = b" hello world"
    on_run: Callable[[StepPlan], None] = lambda plan: None
    config: ModelConfig = CONFIG
    is_gated: bool = False
    gate: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    plans: list[StepPlan] = field(default_factory=list)
    is_closed: bool = False

    def run(self, plan: StepPlan) -> StepResult:
        if self.is_gated:
            self.gate.acquire(timeout=20)
        self.plans.append(plan)
        self.on_run(plan)
        return StepResult(rows=[self.draw_with_drafts(row) for row in plan.rows])

    def open_gate(self) -> None:
        self.is_gated = False
        self.gate.release()

    def draw_with_drafts(self, row: PlanRow) -> RowResult:
        result = last = self.draw(row)
        accepted = []
        for num_drafts, draft in enumerate(row.draft_token_ids, 1):
            if last.token_id != draft:
                break
            last = self.draw(replace(row, token_ids=[*row.token_ids, *row.draft_token_ids[:num_drafts]]))
            accepted.append(last)
        result.accepted = accepted
        return result

    def draw(self, row: PlanRow) -> RowResult:
        prompt_logprobs: list[TokenLogprobs] = []
        if row.num_prompt_logprobs is not None:
            first = row.num_computed_tokens + 1
            targets = row.token_ids[first : min(first + row.num_new_tokens, row.num_prompt_tokens)]
            prompt_logprobs = [_logprobs(token_id, row.num_prompt_logprobs) for token_id in targets]
        if not row.is_sampling:
            return RowResult(prompt_logprobs=prompt_logprobs)
        position = len(row.token_ids) - row.num_prompt_tokens
        token_id = self.script[position] if position < len(self.script) else END_OF_TEXT
        num_top = row.params.num_logprobs
        return RowResult(
            token_id=token_id,
            logprobs=None if num_top is None else _logprobs(token_id, num_top),
            prompt_logprobs=prompt_logprobs,
        )

    def close(self) -> None:
        self.is_closed = True
        self.open_gate()


def _logprobs(token_id: int, num_top: int) -> TokenLogprobs:
    top = tuple((rank, -rank / 100) for rank in range(num_top))
    return TokenLogprobs.of(token_id, -token_id / 100, top)
