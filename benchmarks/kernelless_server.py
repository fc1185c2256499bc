"""Our command line with a runner that waits instead of computing: what remains of a server without its kernels.

    python -m benchmarks.kernelless_server serve --model FOLDER …

Each step takes about as long as with kernels, but no processor time. So the processor time of this server is that of
everything else: HTTP, the engine thread's Python, the hand-over between the two, and serialization.
"""

from __future__ import annotations

import random
import time
from typing import Any

from distilgpt2_api.cli import main
from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.plan import RowResult, StepPlan, StepResult
from distilgpt2_api.model.runner import Runner

STEP_S = 0.0015
ROW_S = 0.00015
"""A step's duration with one row is the sum; each further row adds this. As with int8 kernels on two cores."""
SEED = 0


class WaitingRunner:
    """Samples random tokens, after a wait."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self._random = random.Random(SEED)

    def run(self, plan: StepPlan) -> StepResult:
        time.sleep(STEP_S + ROW_S * len(plan.rows))
        draw, size = self._random.random, self.config.vocab_size - 1
        return StepResult(
            rows=[RowResult(token_id=int(draw() * size)) if row.is_sampling else RowResult() for row in plan.rows]
        )

    def close(self) -> None: ...


def load(_folder: object, _config: object, *, model_config: ModelConfig, **_options: Any) -> WaitingRunner:
    return WaitingRunner(model_config)


if __name__ == "__main__":
    Runner.load = load  # type: ignore[method-assign,assignment]  # the seam: an engine takes any runner
    main(prog_name="distilgpt2-api")
