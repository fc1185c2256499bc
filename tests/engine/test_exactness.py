"""The engine on real kernels in float32: equal to `transformers`, and the same however the work is split."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.scripted_runner import ENGINE_CONFIG

from distilgpt2_api.core.events import EngineObserver, SilentObserver, StepStats
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.engine import Engine
from distilgpt2_api.engine.sync import run_request
from distilgpt2_api.model.runner import Runner
from distilgpt2_api.model.sampling.repetition import SequenceBreakers
from distilgpt2_api.scheduling.scheduler import Scheduler
from distilgpt2_api.text.structured_output.grammars import GrammarCompiler

RequestBuilder = Callable[..., GenerationRequest]
GOLDEN = Path(__file__).parent.parent / "golden"
NUM_BLOCKS = 24
Texts = dict[str, list[int]]


def load_runner(name: str) -> Runner:
    return Runner.load(
        GOLDEN / name,
        ENGINE_CONFIG,
        num_blocks=NUM_BLOCKS,
        cache_folder=None,
        report=lambda note: None,
    )


@pytest.fixture(scope="module")
def plain() -> Iterator[Runner]:
    runner = load_runner("plain")
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def odd() -> Iterator[Runner]:
    runner = load_runner("odd")
    yield runner
    runner.close()


class BareTokenizer:
    """Tokens without text: this file compares ids."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.token_bytes = self.plain_token_bytes = (b"",) * vocab_size


class RecordedSteps(SilentObserver):
    """Counts preemptions and draft tokens."""

    num_preempted = num_drafted = num_accepted = 0

    def on_step(self, stats: StepStats) -> None:
        self.num_preempted += stats.schedule.num_preempted
        self.num_drafted += stats.schedule.num_draft_tokens
        self.num_accepted += stats.num_accepted_tokens


def build(
    runner: Runner, *, observer: EngineObserver | None = None, num_blocks: int = NUM_BLOCKS, **scheduling: Any
) -> Engine:
    config = replace(ENGINE_CONFIG, **{"max_num_sequences": 32, "max_step_tokens": 512, **scheduling})
    tokenizer: Any = BareTokenizer(runner.config.vocab_size)  # a fake with the parts that count
    return Engine(
        runner=runner,
        scheduler=Scheduler(config, num_blocks=num_blocks),
        tokenizer=tokenizer,
        grammars=GrammarCompiler(tokenizer, vocab_size=runner.config.vocab_size, eos_token_ids=()),
        observer=observer or SilentObserver(),
    )


SAMPLERS: dict[str, dict[str, Any]] = {
    "mirostat": {"mirostat": 2, "mirostat_tau": 3.0},
    "mirostat with penalties": {"mirostat": 2, "frequency_penalty": 0.3, "repeat_last_n": 7},
    "dry": {"dry_multiplier": 0.8, "temperature": 0.3},
    "xtc": {"xtc_probability": 0.5, "xtc_threshold": 0.02},
    "top-n-sigma and dynamic temperature": {"top_n_sigma": 1.5, "dynatemp_range": 0.5},
}


def complete_all(engine: Engine, requests: list[GenerationRequest]) -> Texts:
    """Token ids of each request. All run together."""
    completions: Texts = {request.request_id: [] for request in requests}
    for request in requests:
        request.params.derive(SequenceBreakers, lambda: SequenceBreakers([(5,)]))
        engine.add(request, submitted_s=0.0)
    while engine.has_work:
        for request_id, deltas in engine.step().deltas.items():
            for delta in deltas:
                completions[request_id] += delta.token_ids
    assert engine.num_free_blocks == NUM_BLOCKS
    return completions


@pytest.fixture
def mixed_requests(build_request: RequestBuilder) -> list[GenerationRequest]:
    """32 greedy requests; the first has a long prompt."""
    draw = random.Random(3)
    lengths = [40, *(draw.randint(1, 40) for _ in range(31))]
    return [
        build_request(
            [draw.randrange(97) for _ in range(length)], request_id=str(index), temperature=0.0, max_tokens=20
        )
        for index, length in enumerate(lengths)
    ]


@pytest.mark.parametrize("name", ["plain", "odd", "scaled", "unscaled"])
def test_greedy_tokens_and_log_probabilities_are_those_of_transformers(
    name: str, build_request: RequestBuilder
) -> None:
    """Tokens are equal, and log-probabilities of prompt and completion within 1e-4."""
    runner = load_runner(name)
    try:
        for golden in json.loads((GOLDEN / name / "golden.json").read_text()):
            request = build_request(
                golden["prompt"],
                temperature=0.0,
                max_tokens=len(golden["completion"]),
                num_logprobs=0,
                num_prompt_logprobs=0,
            )
            deltas = list(run_request(build(runner), request))
            prompt_logprobs = deltas[0].prompt_logprobs or ()
            assert [token_id for delta in deltas for token_id in delta.token_ids] == golden["completion"]
            logprobs = [*prompt_logprobs, *(entry for delta in deltas for entry in delta.logprobs)]
            assert [entry.logprob for entry in logprobs] == pytest.approx(golden["logprobs"], abs=1e-4)
    finally:
        runner.close()


def test_a_sequence_alone_is_the_same_among_31_others(plain: Runner, mixed_requests: list[GenerationRequest]) -> None:
    together = complete_all(build(plain, num_blocks=NUM_BLOCKS, is_prefix_caching=False), mixed_requests)

    for request in mixed_requests[::5]:
        assert complete_all(build(plain), [request])[request.request_id] == together[request.request_id]


@pytest.mark.parametrize("max_step_tokens", [32, 37])
def test_a_chunked_prefill_gives_the_same_tokens_as_a_whole_one(
    plain: Runner, mixed_requests: list[GenerationRequest], max_step_tokens: int
) -> None:
    chunked = build(plain, max_step_tokens=max_step_tokens, is_prefix_caching=False)

    assert complete_all(chunked, mixed_requests[:8]) == complete_all(build(plain), mixed_requests[:8])


def test_a_cached_prefix_gives_the_same_tokens(plain: Runner, build_request: RequestBuilder) -> None:
    prompt = [index * 7 % 97 for index in range(40)]
    engine = build(plain)
    cold = list(run_request(engine, build_request(prompt, temperature=0.0, max_tokens=20)))
    warm = list(run_request(engine, build_request(prompt, temperature=0.0, max_tokens=20)))

    assert (cold[-1].num_cached_tokens, warm[-1].num_cached_tokens) == (0, 32)
    assert [delta.token_ids for delta in warm] == [delta.token_ids for delta in cold]


def test_a_preempted_sequence_gives_the_same_tokens(odd: Runner, build_request: RequestBuilder) -> None:
    """12 sequences that grow from one block to three, on 24 blocks: some must be preempted."""
    draw = random.Random(5)
    requests = [
        build_request([draw.randrange(131) for _ in range(20)], request_id=str(index), temperature=0.0, max_tokens=50)
        for index in range(12)
    ]
    steps = RecordedSteps()

    disturbed = complete_all(build(odd, observer=steps), requests)

    assert steps.num_preempted > 0
    for request in requests[::5]:
        assert complete_all(build(odd), [request])[request.request_id] == disturbed[request.request_id]


def test_a_seed_gives_the_same_tokens_in_any_batch(plain: Runner, build_request: RequestBuilder) -> None:
    def request(index: int) -> GenerationRequest:
        return build_request(
            [index, index + 1], request_id=str(index), seed=index, temperature=0.9, top_k=20, max_tokens=16
        )

    requests = [request(index) for index in range(16)]
    together = complete_all(build(plain), requests)

    assert complete_all(build(plain), [requests[5]])["5"] == together["5"]
    assert complete_all(build(plain), requests[::-1]) == together


def complete_afresh(name: str, requests: list[GenerationRequest], **options: Any) -> Texts:
    """With a runner of its own, which has met no other sequence of the same id."""
    with closing(load_runner(name)) as runner:
        return complete_all(build(runner, **options), requests)


@pytest.mark.parametrize("options", SAMPLERS.values(), ids=SAMPLERS)
def test_a_samplers_memory_outlives_preemption_chunks_and_other_sequences(
    options: dict[str, Any], build_request: RequestBuilder
) -> None:
    """12 sequences that grow from one block to three, on 24 blocks: some are preempted and resumed."""
    draw = random.Random(5)
    prompts = [[draw.randrange(131) for _ in range(20)] for _ in range(12)]
    requests = [
        build_request(prompt, request_id=str(index), seed=index, max_tokens=50, **options)
        for index, prompt in enumerate(prompts)
    ]
    steps = RecordedSteps()

    disturbed = complete_afresh("odd", requests, observer=steps, max_step_tokens=48)

    assert steps.num_preempted > 0
    for request in requests[::3]:
        assert complete_afresh("odd", [request])[request.request_id] == disturbed[request.request_id]


@pytest.mark.parametrize("options", SAMPLERS.values(), ids=SAMPLERS)
def test_samplers_draw_the_same_tokens_with_drafts(options: dict[str, Any], build_request: RequestBuilder) -> None:
    """Mirostat gets none: what it remembers is of one position."""
    request = build_request([1, 2, 3] * 6, **{"temperature": 0.05, "seed": 5, "max_tokens": 40, **options})
    steps = RecordedSteps()

    drafted = complete_afresh("plain", [request], max_draft_tokens=15, observer=steps)

    assert drafted == complete_afresh("plain", [request])
    assert (steps.num_drafted == 0) or "mirostat" not in options


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"temperature": 0.0, "repetition_penalty": 1.02, "num_logprobs": 2},
        {"temperature": 0.0, "frequency_penalty": 0.05, "logit_bias": ((7, 2.0),)},
        {"temperature": 0.05},
        {"temperature": 0.05, "top_k": 5, "top_p": 0.9, "num_logprobs": 0},
        {"temperature": 0.05, "min_tokens": 40, "stop_token_ids": (3, 4, 5)},
    ],
)
@pytest.mark.parametrize("num_requests", [1, 3])
def test_drafts_change_no_token(
    num_requests: int, options: dict[str, Any], plain: Runner, build_request: RequestBuilder
) -> None:
    """For texts that repeat themselves, to the context's end, with accepted and rejected drafts.

    Then again on cached blocks that were computed in steps with rejected drafts.
    """
    requests = [
        build_request(
            [1 + index, 2, 3] * 4,
            request_id=str(index),
            **{"max_tokens": 52, "ignore_eos": True, "seed": 5, **options},
        )
        for index in range(num_requests)
    ]
    expected = complete_all(build(plain), requests)
    steps = RecordedSteps()
    engine = build(plain, max_draft_tokens=15, observer=steps)

    assert complete_all(engine, requests) == expected
    assert complete_all(engine, requests) == expected
    is_drafting = num_requests == 1 or options["temperature"] == 0.0
    assert (0 < steps.num_accepted < steps.num_drafted) == is_drafting
