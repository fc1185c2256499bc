"""The service's engine with timers in its parts, and its forward passes alone."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.forward import logits_alone

from distilgpt2_api.core.config import MAX_DRAFT_TOKENS, EngineConfig, Precision
from distilgpt2_api.core.events import SilentObserver
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.factory import load_engine
from distilgpt2_api.model.kernels.draws import DrawBatch
from distilgpt2_api.model.kernels.kernel_engine import KernelEngine
from distilgpt2_api.model.step_inputs import StepInputs
from distilgpt2_api.settings import Settings
from distilgpt2_api.settings.host_resources import choose_kv_cache_bytes, count_usable_cores, read_memory_limit_bytes

MAX_STEP_TOKENS = int(Settings.model_fields["max_step_tokens"].default)
PARTS = ("schedule", "kernels", "runner", "update", "collect")
"""The parts of a step: `kernels` are forward pass and draws, `runner` is what it does beside them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A number of sequences that start together, with top-k sampling; each ends by length."""

    num_sequences: int
    num_prompt_tokens: int
    num_new_tokens: int
    top_k: int

    @property
    def num_tokens(self) -> int:
        return self.num_sequences * self.num_new_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRun:
    """Results of a load. Rates are in completion tokens per second; the time includes prefill."""

    engine_rate: float
    forward_rate: float
    """Rate of the same steps' forward passes alone, one after the other."""
    step_parts_ms: dict[str, float]
    """Average milliseconds of each part of a step. They add up to the step."""

    @property
    def share_of_forward(self) -> float:
        return self.engine_rate / self.forward_rate


def engine_config(
    precision: Precision, num_threads: int | None, *, max_step_tokens: int = MAX_STEP_TOKENS, kernels: str = ""
) -> EngineConfig:
    """The config of `serve`, except that batch work may use whole steps."""
    memory_limit_bytes = read_memory_limit_bytes()
    kv_cache_bytes = choose_kv_cache_bytes(memory_limit_bytes)
    return EngineConfig(
        precision=precision,
        kernels=kernels,
        num_threads=num_threads or count_usable_cores(),
        kv_cache_bytes=kv_cache_bytes,
        memory_limit_bytes=memory_limit_bytes,
        max_num_sequences=Settings.model_fields["max_num_sequences"].default,
        max_step_tokens=max_step_tokens,
        max_batch_step_tokens=max_step_tokens,
        max_draft_tokens=MAX_DRAFT_TOKENS,
        is_prefix_caching=True,
        prefix_cache_bytes=int(Settings.model_fields["prefix_cache_bytes"].default),
    )


class TimedEngine:
    """Owns an engine, built as by `serve`. For use by one thread."""

    def __init__(
        self,
        folder: Path,
        *,
        precision: Precision,
        num_threads: int | None,
        cache_folder: Path,
        max_step_tokens: int = MAX_STEP_TOKENS,
        kernels: str = "",
    ) -> None:
        config = engine_config(precision, num_threads, max_step_tokens=max_step_tokens, kernels=kernels)
        self._engine = load_engine(folder, config, cache_folder=cache_folder, observer=SilentObserver(), report=print)
        self._random = np.random.default_rng(0)
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._steps: list[tuple[StepInputs, list[int]]] = []
        """Inputs of each step, and the tokens whose logits it computed."""
        runner: Any = self._engine._runner  # noqa: SLF001 - the benchmark times private parts
        scheduler = self._engine._scheduler  # noqa: SLF001 - the benchmark times private parts
        self._kernels: KernelEngine = runner._forward_pass.engine  # noqa: SLF001 - the benchmark times private parts
        self._compute = self._kernels.step
        self._record()
        for owner, method, part in (
            (self._kernels, "step", "kernels"),
            (self._kernels, "draw", "kernels"),
            (runner, "run", "run"),
            (scheduler, "schedule", "schedule"),
            (scheduler, "update", "update"),
            (self._engine, "step", "step"),
        ):
            self._time(owner, method, part)

    def run(self, load: Load) -> EngineRun:
        """Run the load through the engine, then its forward passes alone."""
        self._seconds.clear()
        self._steps.clear()
        for index in range(load.num_sequences):
            prompt = self._random.integers(0, self._engine.config.vocab_size - 1, load.num_prompt_tokens)
            params = SamplingParams(max_tokens=load.num_new_tokens, top_k=load.top_k, ignore_eos=True, seed=index)
            request = GenerationRequest(
                request_id=str(index), prompt_token_ids=tuple(prompt.tolist()), params=params, num_sequences=1
            )
            self._engine.add(request, submitted_s=time.monotonic())
        num_steps = 0
        begin_s = time.perf_counter()
        while self._engine.has_work:
            self._engine.step()
            num_steps += 1
        engine_s = time.perf_counter() - begin_s
        parts = {name: 1000 * part_s / num_steps for name, part_s in self._parts_s().items()}
        forward_s = self._replay()
        return EngineRun(
            engine_rate=load.num_tokens / engine_s, forward_rate=load.num_tokens / forward_s, step_parts_ms=parts
        )

    def close(self) -> None:
        self._engine.close()

    def _replay(self, *, has_head: bool = True) -> float:
        """Run the recorded forward passes again, with the same tokens, positions and blocks. Returns seconds."""
        draws = [logits_alone(tokens if has_head else []) for _, tokens in self._steps]
        begin_s = time.perf_counter()
        for (inputs, _), one in zip(self._steps, draws, strict=True):
            self._compute(inputs, one)
        return time.perf_counter() - begin_s

    def _parts_s(self) -> dict[str, float]:
        seconds = self._seconds
        times = (
            seconds["schedule"],
            seconds["kernels"],
            seconds["run"] - seconds["kernels"],
            seconds["update"],
            seconds["step"] - seconds["schedule"] - seconds["run"] - seconds["update"],
        )
        return dict(zip(PARTS, times, strict=True))

    def _time(self, owner: object, method: str, part: str) -> None:
        """Sum the seconds of all calls of a method; costs a third of a microsecond per call."""
        call: Callable[..., Any] = getattr(owner, method)
        seconds, clock = self._seconds, time.perf_counter

        @wraps(call)
        def timed(*args: Any, **options: Any) -> Any:
            begin_s = clock()
            result = call(*args, **options)
            seconds[part] += clock() - begin_s
            return result

        setattr(owner, method, timed)

    def _record(self) -> None:
        steps, compute = self._steps, self._compute

        @wraps(compute)
        def recorded(inputs: StepInputs, draws: DrawBatch) -> Any:
            steps.append((inputs, draws.find_tokens(inputs.token_begins)))
            return compute(inputs, draws)

        setattr(self._kernels, "step", recorded)  # noqa: B010 - mypy refuses an assignment to a method
