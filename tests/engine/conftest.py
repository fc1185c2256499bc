"""An engine without kernels: a runner with scripted output, and a tokenizer with one byte per token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tests import scripted_runner
from tests.scripted_runner import ENGINE_CONFIG, ScriptedRunner

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.events import StepStats
from distilgpt2_api.core.outputs import SequenceDelta
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.engine import Engine
from distilgpt2_api.scheduling.scheduler import Scheduler
from distilgpt2_api.text.structured_output.grammars import GrammarCompiler

CONFIG = replace(scripted_runner.CONFIG, vocab_size=260)
"""A padded vocabulary: three tokens more than the tokenizer has."""


@dataclass
class PaddedRunner(ScriptedRunner):
    script: bytes = b"hello world"
    config: ModelConfig = CONFIG


class ByteTokenizer:
    """Token i is byte i, and 256 is the end of text. Has the part of `Tokenizer` that an engine needs."""

    token_bytes = (*(bytes([value]) for value in range(256)), b"<|endoftext|>")
    plain_token_bytes = (*token_bytes[:256], b"")
    vocab_size = 257
    special_token_ids = frozenset({256})
    max_token_bytes = 13

    def encode(self, text: str) -> list[int]:
        return list(text.encode())


@dataclass
class RecordingObserver:
    steps: list[StepStats] = field(default_factory=list)
    finished: list[SequenceDelta] = field(default_factory=list)

    def on_step(self, stats: StepStats) -> None:
        self.steps.append(stats)

    def on_sequence_finished(self, last: SequenceDelta, *, is_batch: bool) -> None:
        self.finished.append(last)


class TickingClock:
    """Advances by a second at each reading."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


EngineBuilder = Callable[..., Engine]
RequestBuilder = Callable[..., GenerationRequest]


@pytest.fixture
def build_runner() -> Callable[..., ScriptedRunner]:
    return PaddedRunner


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
        **scheduling: Any,
    ) -> Engine:
        tokenizer: Any = ByteTokenizer()  # a fake with the parts that count
        grammars = GrammarCompiler(tokenizer, vocab_size=CONFIG.vocab_size, eos_token_ids=CONFIG.eos_token_ids)
        compilers.append(grammars)
        return Engine(
            runner=runner or PaddedRunner(script=script),
            scheduler=Scheduler(replace(ENGINE_CONFIG, **scheduling), num_blocks=num_blocks),
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
