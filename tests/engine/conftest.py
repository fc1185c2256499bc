"""A scene without kernels: a runner that draws by rule, a tokenizer of one byte a token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.events import SequenceFinished, StepStats
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow, RowResult, StepPlan, StepResult, TokenLogprobs
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.engine import Engine
from distilgpt2_api.scheduling.scheduler import Scheduler
from distilgpt2_api.text.grammars import GrammarCompiler

END_OF_TEXT = 256
CONFIG = ModelConfig(
    vocab_size=260, num_positions=256, num_layers=1, num_heads=1, width=8, inner_width=32, eos_token_id=END_OF_TEXT
)


class ByteTokenizer:
    """Token i is byte i; 256 is the end of text. As much of `Tokenizer` as an engine needs."""

    token_bytes = (*(bytes([value]) for value in range(256)), b"<|endoftext|>")
    plain_token_bytes = (*token_bytes[:256], b"")
    vocab_size = 257
    special_token_ids = frozenset({256})
    max_token_bytes = 13

    def encode(self, text: str) -> list[int]:
        return list(text.encode())


@dataclass
class ScriptedRunner:
    """Draws the bytes of `script` after every prompt, then the end of text; `on_run` may raise or look at the plan."""

    script: bytes = b"hello world"
    on_run: Callable[[StepPlan], None] = lambda plan: None
    config: ModelConfig = CONFIG
    plans: list[StepPlan] = field(default_factory=list)
    is_closed: bool = False

    def run(self, plan: StepPlan) -> StepResult:
        self.plans.append(plan)
        self.on_run(plan)
        return StepResult(rows=[self._draw(row) for row in plan.rows])

    def _draw(self, row: PlanRow) -> RowResult:
        if not row.is_sampling:
            return RowResult()
        position = len(row.token_ids) - row.num_prompt_tokens
        token_id = self.script[position] if position < len(self.script) else END_OF_TEXT
        wants = row.params.num_logprobs is not None
        return RowResult(token_id=token_id, logprobs=TokenLogprobs(token_id=token_id, logprob=-1.0) if wants else None)

    def close(self) -> None:
        self.is_closed = True


@dataclass
class RecordingObserver:
    steps: list[StepStats] = field(default_factory=list)
    finished: list[SequenceFinished] = field(default_factory=list)

    def on_step(self, stats: StepStats) -> None:
        self.steps.append(stats)

    def on_sequence_finished(self, finished: SequenceFinished) -> None:
        self.finished.append(finished)


class TickingClock:
    """One second later at each look."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


EngineBuilder = Callable[..., Engine]
RequestBuilder = Callable[..., GenerationRequest]


@pytest.fixture
def build_runner() -> Callable[..., ScriptedRunner]:
    return ScriptedRunner


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
def build_engine(observer: RecordingObserver) -> Iterator[EngineBuilder]:
    compilers: list[GrammarCompiler] = []

    def build(
        runner: ScriptedRunner | None = None,
        *,
        script: bytes = b"hello world",
        num_blocks: int = 64,
        max_num_sequences: int = 8,
        max_step_tokens: int = 64,
    ) -> Engine:
        tokenizer: Any = ByteTokenizer()  # a fake with the parts that count
        grammars = GrammarCompiler(tokenizer, vocab_size=CONFIG.vocab_size, eos_token_id=CONFIG.eos_token_id)
        compilers.append(grammars)
        return Engine(
            runner=runner or ScriptedRunner(script=script),
            scheduler=Scheduler(
                num_blocks=num_blocks, max_num_sequences=max_num_sequences, max_step_tokens=max_step_tokens
            ),
            tokenizer=tokenizer,
            grammars=grammars,
            observer=observer,
            clock=TickingClock(),
        )

    yield build
    for grammars in compilers:
        grammars.close()


@pytest.fixture
def build_request() -> RequestBuilder:
    num_built = 0

    def build(
        prompt: str | Sequence[int] = "once",
        *,
        num_sequences: int = 1,
        is_streamed: bool = True,
        priority: int = 0,
        deadline_s: float | None = None,
        request_id: str | None = None,
        **params: object,
    ) -> GenerationRequest:
        nonlocal num_built
        num_built += 1
        token_ids = tuple(prompt.encode()) if isinstance(prompt, str) else tuple(prompt)
        return GenerationRequest(
            request_id=request_id or f"request-{num_built}",
            prompt_token_ids=token_ids,
            params=SamplingParams(**{"max_tokens": 64, **params}),  # type: ignore[arg-type]  # the test names real fields
            num_sequences=num_sequences,
            is_streamed=is_streamed,
            priority=priority,
            deadline_s=deadline_s,
        )

    return build
