"""Beam search through the engine: real engine thread and scheduler, over a runner that follows a table."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests import scripted_runner
from tests.scripted_runner import END_OF_TEXT, ENGINE_CONFIG, ScriptedRunner

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import (
    ContextLengthError,
    DeadlineExceededError,
    DrainingError,
    EngineFailedError,
    GenerationError,
    InvalidRequestError,
    OverloadedError,
)
from distilgpt2_api.core.events import SilentObserver
from distilgpt2_api.core.grammar import Grammar, GrammarKind
from distilgpt2_api.core.outputs import SequenceDelta
from distilgpt2_api.core.params import BEAM_SEARCH_PARAMETERS, PARAMETERS, SamplingParams
from distilgpt2_api.core.plan import PlanRow, RowResult, StepPlan, TokenLogprobs
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.admission import Admission
from distilgpt2_api.engine.async_engine import AsyncEngine
from distilgpt2_api.engine.beam_search import BeamOptions
from distilgpt2_api.engine.engine import Engine, StepRunner
from distilgpt2_api.model.runner import Runner
from distilgpt2_api.observability.request_record import RequestRecord
from distilgpt2_api.scheduling.scheduler import Scheduler
from distilgpt2_api.server.generation.beam_options import check_beam_search, find_ending_token_ids
from distilgpt2_api.server.generation.beam_search import BeamGeneration
from distilgpt2_api.text.structured_output.grammars import GrammarCompiler
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

GOLDEN = Path(__file__).parents[2] / "golden"
CONFIG = replace(scripted_runner.CONFIG, num_positions=64)
NUM_BLOCKS = 24

FOLLOWERS = {
    b">": {b"a": -0.5, b"b": -1.0, b"c": -3.0},
    b"a": {b"x": -2.0, b"y": -2.5, b"": -2.6},
    b"b": {b"": -0.1, b"z": -0.2, b"b": -4.0},
    b"x": {b"x": -1.0},
    b"z": {b"": -0.3, b"z": -2.0},
}
"""Log-probabilities of the bytes that may follow a byte. An empty one is the end of text."""


@dataclass
class TableRunner(ScriptedRunner):
    """Scores the next token by FOLLOWERS; all others are practically impossible."""

    config: ModelConfig = CONFIG
    error: str | None = None

    def draw(self, row: PlanRow) -> RowResult:
        if not row.is_sampling:
            return RowResult()
        followers = FOLLOWERS.get(bytes(row.token_ids[-1:]), {})
        logprobs = {token_id: -20.0 - token_id for token_id in range(257)}
        logprobs |= {(byte[0] if byte else END_OF_TEXT): logprob for byte, logprob in followers.items()}
        top = sorted(logprobs.items(), key=lambda item: -item[1])[: row.params.num_logprobs]
        prompt_logprobs = [TokenLogprobs(token_id=token_id, logprob=-1.0) for token_id in row.token_ids[1:]]
        return RowResult(
            token_id=top[0][0],
            logprobs=TokenLogprobs.of(*top[0], top),
            prompt_logprobs=() if row.num_prompt_logprobs is None else prompt_logprobs,
            error=self.error,
        )


@dataclass
class Scene:
    engine: AsyncEngine
    core: Engine
    record: RequestRecord = field(default_factory=lambda: RequestRecord(request_id="test"))

    def search(self, *requests: GenerationRequest, num_beams: int = 2, **options: Any) -> BeamGeneration:
        return BeamGeneration(self.engine, requests, BeamOptions(num_beams=num_beams, **options), self.record)

    @property
    def is_idle(self) -> bool:
        return self.engine.num_requests == 0 and self.core.num_free_blocks == NUM_BLOCKS


Play = Callable[[Scene], Awaitable[None]]
Player = Callable[..., None]


@pytest.fixture
def play(tokenizer: Tokenizer) -> Player:
    """Run a scenario with an engine on a thread; afterwards nothing may be left in it."""

    @asynccontextmanager
    async def opened(runner: StepRunner, max_waiting_requests: int) -> AsyncIterator[Scene]:
        scheduler = Scheduler(ENGINE_CONFIG, num_blocks=NUM_BLOCKS)
        core = Engine(
            runner=runner,
            scheduler=scheduler,
            tokenizer=tokenizer,
            grammars=GrammarCompiler(tokenizer, vocab_size=runner.config.vocab_size, eos_token_ids=()),
            observer=SilentObserver(),
        )
        admission = Admission(max_waiting_requests=max_waiting_requests, max_waiting_tokens=10_000)
        engine = AsyncEngine(lambda: core, admission=admission)
        await engine.start()
        await engine.wait_loaded()
        scene = Scene(engine, core)
        try:
            yield scene
        finally:
            await engine.stop()
        assert scene.is_idle

    def played(scenario: Play, *, runner: StepRunner | None = None, max_waiting_requests: int = 8) -> None:
        async def bounded() -> None:
            async with opened(runner or TableRunner(), max_waiting_requests) as scene, asyncio.timeout(20):
                await scenario(scene)

        asyncio.run(bounded())

    return played


def ask(
    prompt: str | list[int] = ">",
    *,
    num_sequences: int = 2,
    request_id: str = "r",
    deadline_s: float | None = None,
    **params: Any,
) -> GenerationRequest:
    return GenerationRequest(
        request_id=request_id,
        prompt_token_ids=tuple(prompt.encode() if isinstance(prompt, str) else prompt),
        params=SamplingParams(**{"max_tokens": 3, **params}),
        num_sequences=num_sequences,
        deadline_s=deadline_s,
    )


async def collect(generation: BeamGeneration) -> dict[int, tuple[SequenceDelta, ...]]:
    """All deltas, by prompt."""
    return {index: deltas async for update in generation.updates() for index, deltas in update}


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 - other tasks' turns, not time
        await asyncio.sleep(0)


async def texts(generation: BeamGeneration) -> list[str]:
    return [delta.text for delta in (await collect(generation))[0]]


# ---- results


def test_the_best_sequences_are_complete_and_sorted(play: Player) -> None:
    """The best sequences do not begin with the likeliest token. The end-of-text token is counted but not shown."""

    async def scenario(scene: Scene) -> None:
        best, second = (await collect(scene.search(ask())))[0]
        assert (best.index, best.text, best.token_ids, best.finish_reason) == (0, "bz", (98, 122, END_OF_TEXT), "stop")
        assert (second.index, second.text, second.token_ids, second.finish_reason) == (
            1,
            "b",
            (98, END_OF_TEXT),
            "stop",
        )
        assert (best.num_prompt_tokens, best.num_completion_tokens, second.num_completion_tokens) == (1, 3, 2)
        assert best.stop is None
        assert best.logprobs == ()
        assert best.timings is not None
        assert best.timings.ttft_s is not None
        assert 0 <= best.timings.queue_s <= best.timings.ttft_s <= best.timings.total_s
        assert scene.record.finish_reasons == ["stop", "stop"]
        assert scene.record.num_completion_tokens == 5

    play(scenario)


def test_fewer_sequences_than_beams_are_the_best_of_them(play: Player) -> None:
    async def scenario(scene: Scene) -> None:
        assert await texts(scene.search(ask(num_sequences=1), num_beams=3)) == ["bz"]

    play(scenario)


def test_a_sequence_may_end_by_length_or_by_a_stop_token(play: Player) -> None:
    """A stop token is named, as in any completion."""

    async def scenario(scene: Scene) -> None:
        ended, stopped = (await collect(scene.search(ask(stop_token_ids=(122,)))))[0]
        assert (ended.text, ended.token_ids, ended.stop) == ("b", (98, END_OF_TEXT), None)
        assert (stopped.text, stopped.token_ids, stopped.stop) == ("b", (98, 122), 122)
        (cut, _) = (await collect(scene.search(ask(max_tokens=1))))[0]
        assert (cut.text, cut.finish_reason, cut.stop) == ("a", "length", None)

    play(scenario)


def test_min_tokens_bars_the_end_of_text(play: Player) -> None:
    async def scenario(scene: Scene) -> None:
        assert await texts(scene.search(ask(min_tokens=3))) == ["bzz", "axx"]

    play(scenario)


def test_log_probabilities_are_those_of_each_step(play: Player) -> None:
    """For each token of the sequence, with its likeliest alternatives; for the prompt too, on request."""

    async def scenario(scene: Scene) -> None:
        best, _ = (await collect(scene.search(ask(">>", num_logprobs=1, num_prompt_logprobs=0))))[0]
        assert [(token.token_id, token.logprob, token.top) for token in best.logprobs] == [
            (98, -1.0, ((97, -0.5),)),
            (122, -0.2, ((END_OF_TEXT, -0.1),)),
            (END_OF_TEXT, -0.3, ((END_OF_TEXT, -0.3),)),
        ]
        assert [token.token_id for token in best.prompt_logprobs or ()] == [62]

    play(scenario)


def test_a_partial_character_at_the_end_becomes_a_replacement_character(
    play: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FOLLOWERS, b">", {b"\xc3": -0.1})

    async def scenario(scene: Scene) -> None:
        assert (await texts(scene.search(ask(max_tokens=1))))[0] == "\ufffd"

    play(scenario)


def test_beams_of_all_prompts_are_computed_together(play: Player) -> None:
    """Two prompts with two beams each are four rows in a step. Each gets the same result as alone."""
    runner = TableRunner(is_gated=True)

    async def scenario(scene: Scene) -> None:
        requests = [ask(prompt, request_id=str(index)) for index, prompt in enumerate([">", "b", ">"])]
        task = asyncio.create_task(collect(scene.search(*requests)))
        await until(lambda: scene.engine.num_requests == 3)
        runner.open_gate()
        together = await task
        alone = [await texts(scene.search(request)) for request in requests]
        assert [[delta.text for delta in together[index]] for index in range(3)] == alone
        assert alone == [["bz", "b"], ["", "z"], ["bz", "b"]]

    play(scenario, runner=runner)
    assert max(len(plan.rows) for plan in runner.plans) == 6


@pytest.mark.parametrize("name", ["plain", "odd"])
def test_sequences_are_those_of_transformers(name: str, play: Player) -> None:
    """On real kernels, with several prompts at a time and beams that share blocks of the prefix cache."""
    runner = Runner.load(
        GOLDEN / name,
        ENGINE_CONFIG,
        num_blocks=NUM_BLOCKS,
        cache_folder=None,
        report=lambda note: None,
    )
    goldens = json.loads((GOLDEN / name / "beams.json").read_text())

    async def scenario(scene: Scene) -> None:
        for golden in goldens[::4]:
            search = scene.search(
                ask(
                    golden["prompt"],
                    num_sequences=golden["num_return_sequences"],
                    max_tokens=golden["max_new_tokens"],
                    min_tokens=golden.get("min_new_tokens", 0),
                    stop_token_ids=tuple(golden["ending"]),
                    num_logprobs=0,
                ),
                num_beams=golden["num_beams"],
                length_penalty=golden["length_penalty"],
                early_stopping=golden["early_stopping"],
            )
            deltas = (await collect(search))[0]
            assert [list(delta.token_ids) for delta in deltas] == golden["completions"]
            sums = [sum(token.logprob for token in delta.logprobs) for delta in deltas]
            scores = [
                total / len(delta.token_ids) ** golden["length_penalty"]
                for total, delta in zip(sums, deltas, strict=True)
            ]
            assert scores == pytest.approx(golden["scores"], rel=1e-6, abs=1e-4)

    play(scenario, runner=runner)


# ---- interruptions


def test_an_abort_before_the_beginning_submits_nothing(play: Player) -> None:
    async def scenario(scene: Scene) -> None:
        search = scene.search(ask())
        search.abort()
        assert await collect(search) == {}
        assert scene.engine.num_requests == 0

    play(scenario)


@pytest.mark.parametrize("num_steps", [0, 1, 2])
def test_an_abort_at_any_step_leaves_nothing_behind(play: Player, num_steps: int) -> None:
    """The iteration ends without sequences, and the beams in flight are aborted."""
    runner = TableRunner(is_gated=True)

    async def scenario(scene: Scene) -> None:
        search = scene.search(ask())
        task = asyncio.create_task(collect(search))
        for step in range(num_steps + 1):
            await until(lambda: scene.engine.num_requests > 0 and len(runner.plans) == step)  # noqa: B023 - at once
            if step < num_steps:
                runner.gate.release()
        search.abort()
        search.abort()
        assert scene.engine.num_requests == 0
        assert await task == {}
        runner.open_gate()

    play(scenario, runner=runner)


def test_a_reader_that_stops_ends_the_search(play: Player) -> None:
    """The reader stops after the first prompt, before the second is done."""

    async def scenario(scene: Scene) -> None:
        search = scene.search(
            ask(max_tokens=1), ask(request_id="long", max_tokens=40, ignore_eos=True), early_stopping="never"
        )
        async with aclosing(search.updates()) as updates:
            async for update in updates:
                assert [index for index, _ in update] == [0]
                break
        assert scene.engine.num_requests == 0

    play(scenario)


def test_a_deadline_applies_to_the_whole_search(play: Player) -> None:
    """Each step gets the remaining time. The clock advances a second per reading, so five steps are too many."""
    now_s = iter(range(1000))

    async def scenario(scene: Scene) -> None:
        request = ask(max_tokens=40, ignore_eos=True, deadline_s=5.0)
        search = BeamGeneration(
            scene.engine, [request], BeamOptions(num_beams=2), scene.record, clock=lambda: float(next(now_s))
        )
        with pytest.raises(DeadlineExceededError):
            await collect(search)
        assert scene.engine.num_requests == 0
        assert scene.record.finish_reasons == ["abort"] * len(scene.record.finish_reasons) != []

    play(scenario)


def test_a_full_queue_refuses_a_search_only_at_its_beginning(play: Player) -> None:
    """A search that has started runs to its end, before queued requests."""
    runner = TableRunner(is_gated=True)

    async def scenario(scene: Scene) -> None:
        task = asyncio.create_task(texts(scene.search(ask(request_id="first"))))
        await until(lambda: scene.engine.num_requests == 1)
        with pytest.raises(OverloadedError):
            await collect(scene.search(ask(request_id="second")))
        runner.gate.release()
        await until(lambda: scene.engine.num_requests == 2)  # its next two beams
        waiting = scene.engine.submit(ask(request_id="waits", num_sequences=1))
        with pytest.raises(OverloadedError):
            await collect(scene.search(ask(request_id="third")))
        runner.open_gate()
        assert await task == ["bz", "b"]
        assert [delta.text async for deltas in waiting for delta in deltas]

    play(scenario, runner=runner, max_waiting_requests=1)


def test_all_prompts_are_admitted_or_none(play: Player) -> None:
    async def scenario(scene: Scene) -> None:
        waiting = scene.engine.submit(ask(request_id="waits"))
        with pytest.raises(OverloadedError):
            await collect(scene.search(ask(request_id="a"), ask(request_id="b")))
        assert scene.engine.num_requests == 1
        waiting.abort()

    play(scenario, runner=TableRunner(is_gated=True), max_waiting_requests=2)


def test_a_drain_lets_a_search_end(play: Player) -> None:
    runner = TableRunner(is_gated=True)

    async def scenario(scene: Scene) -> None:
        task = asyncio.create_task(texts(scene.search(ask())))
        await until(lambda: scene.engine.num_requests == 1)
        draining = asyncio.create_task(scene.engine.drain(10.0))
        await asyncio.sleep(0)
        with pytest.raises(DrainingError):
            await collect(scene.search(ask(request_id="late")))
        runner.open_gate()
        await draining
        assert await task == ["bz", "b"]

    play(scenario, runner=runner)


def test_a_drain_that_times_out_fails_a_search(play: Player) -> None:
    runner = TableRunner(is_gated=True)

    async def scenario(scene: Scene) -> None:
        task = asyncio.create_task(texts(scene.search(ask())))
        await until(lambda: scene.engine.num_requests == 1)
        await scene.engine.drain(0.0)
        with pytest.raises(DrainingError):
            await task
        runner.open_gate()

    play(scenario, runner=runner)


def test_a_beam_that_fails_fails_the_search(play: Player) -> None:
    async def scenario(scene: Scene) -> None:
        with pytest.raises(GenerationError):
            await collect(scene.search(ask()))

    play(scenario, runner=TableRunner(error="its logits are not finite"))


def test_an_engine_that_fails_fails_the_search(play: Player) -> None:
    def explode(plan: StepPlan) -> None:
        raise RuntimeError("a kernel broke")

    async def scenario(scene: Scene) -> None:
        with pytest.raises(EngineFailedError):
            await collect(scene.search(ask()))
        scene.core.abort("r-1-0")  # the engine's thread has ended

    play(scenario, runner=TableRunner(on_run=explode))


def test_a_search_must_fit_the_context_as_a_whole(play: Player) -> None:
    """Even if its first step alone would fit."""

    async def scenario(scene: Scene) -> None:
        with pytest.raises(ContextLengthError, match=r"requested 65 tokens \(1 in the prompt, 64 in the completion\)"):
            await collect(scene.search(ask(max_tokens=64)))

    play(scenario)


# ---- parameters


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"temperature": 0.7}, "temperature"),
        ({"top_k": 5}, "top_k"),
        ({"top_p": 0.9}, "top_p"),
        ({"min_p": 0.1}, "min_p"),
        ({"typical_p": 0.9}, "typical_p"),
        ({"presence_penalty": 1.0}, "presence_penalty"),
        ({"frequency_penalty": 1.0}, "frequency_penalty"),
        ({"repetition_penalty": 1.1}, "repetition_penalty"),
        ({"no_repeat_ngram_size": 2}, "no_repeat_ngram_size"),
        ({"logit_bias": ((1, 2.0),)}, "logit_bias"),
        ({"bad_words": ((1,),)}, "bad_words"),
        ({"allowed_token_ids": (1,)}, "allowed_token_ids"),
        ({"grammar": Grammar(GrammarKind.REGEX, "a+")}, "response_format"),
        ({"stop": ("\n",)}, "stop"),
        ({"stop_token_ids": tuple(range(65))}, "stop_token_ids"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_parameters_that_beam_search_lacks_are_refused_by_name(params: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError, match=param) as caught:
        check_beam_search(
            SamplingParams(**params),
            BeamOptions(num_beams=2),
            CONFIG,
            is_streamed=False,
            grammar_param="response_format",
        )
    assert caught.value.param == param


@pytest.mark.reported("a reader of the code: a sampling parameter that is new would have been accepted and ignored")
@pytest.mark.parametrize("name", [item.name for item in PARAMETERS])
def test_every_parameter_that_beam_search_lacks_is_refused(name: str) -> None:
    default = getattr(SamplingParams(), name)
    nothing = Grammar(GrammarKind.REGEX, "a") if name == "grammar" else 1
    another = 3 if default == 2 else 2
    others: dict[type, Any] = {bool: True, int: another, float: 0.5, tuple: ((1, 0.5),), type(None): nothing}
    params = SamplingParams(**{name: others[type(default)]})
    options = BeamOptions(num_beams=2)
    check = partial(check_beam_search, params, options, CONFIG, is_streamed=False, grammar_param="grammar")
    if name in BEAM_SEARCH_PARAMETERS:
        check()
    else:
        with pytest.raises(InvalidRequestError, match=f"{name} cannot be used with use_beam_search"):
            check()


def test_a_seed_does_not_change_a_beam_search(client: Any) -> None:
    asked = {"prompt": ">", "use_beam_search": True, "n": 2, "max_tokens": 3}
    texts = [
        [choice["text"] for choice in client.complete(**asked, seed=seed).json()["choices"]]
        for seed in (1, 2, -1, None)
    ]
    assert texts == [texts[0]] * 4


def test_a_beam_search_is_not_streamed() -> None:
    with pytest.raises(InvalidRequestError, match="stream"):
        check_beam_search(
            SamplingParams(), BeamOptions(num_beams=2), CONFIG, is_streamed=True, grammar_param="response_format"
        )


def test_each_of_several_end_tokens_ends_a_beam() -> None:
    config = replace(CONFIG, eos_token_ids=(4, 2))
    assert find_ending_token_ids(SamplingParams(stop_token_ids=(7,)), config) == {2, 4, 7}
    assert find_ending_token_ids(SamplingParams(stop_token_ids=(7,), ignore_eos=True), config) == {7}


def test_there_must_be_a_token_for_each_beam() -> None:
    """Otherwise a search could not return as many sequences as requested."""
    tiny = replace(CONFIG, vocab_size=5, eos_token_ids=(4,))
    check_beam_search(
        SamplingParams(), BeamOptions(num_beams=4), tiny, is_streamed=False, grammar_param="response_format"
    )
    with pytest.raises(InvalidRequestError, match="has 5 beams; this model allows at most 4"):
        check_beam_search(
            SamplingParams(), BeamOptions(num_beams=5), tiny, is_streamed=False, grammar_param="response_format"
        )


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0.0},
        {"seed": 3, "min_tokens": 2, "ignore_eos": True, "stop_token_ids": (1, 2), "num_logprobs": 5},
        {"num_prompt_logprobs": 0, "max_tokens": 1, "include_stop_str_in_output": True},
    ],
)
def test_parameters_that_beam_search_has_are_accepted(params: dict[str, Any]) -> None:
    check_beam_search(
        SamplingParams(**params), BeamOptions(num_beams=2), CONFIG, is_streamed=False, grammar_param="response_format"
    )


# ---- over HTTP


@pytest.fixture
def client(open_client: Callable[..., Any]) -> Any:
    return open_client(runner=TableRunner(), max_n=4)


def test_a_beam_search_request_gets_the_best_sequences(client: Any) -> None:
    """`best_of` beams, `n` choices. The rest of the answer is the same as for any completion."""
    body = client.complete(
        prompt=[">", "b"],
        use_beam_search=True,
        n=2,
        best_of=3,
        max_tokens=3,
        echo=True,
        logprobs=1,
        return_token_ids=True,
        early_stopping="never",
    ).json()
    choices = body["choices"]
    assert [(choice["index"], choice["text"], choice["finish_reason"]) for choice in choices] == [
        (0, ">bz", "stop"),
        (1, ">b", "stop"),
        (2, "b", "stop"),
        (3, "bz", "stop"),
    ]
    assert choices[0]["token_ids"] == [98, 122, END_OF_TEXT]
    assert choices[0]["prompt_token_ids"] == [62]
    assert choices[0]["logprobs"] == {
        "tokens": [">", "b", "z", "<|endoftext|>"],
        "token_logprobs": [None, -1.0, -0.2, -0.3],
        "top_logprobs": [None, {"a": -0.5, "b": -1.0}, {"<|endoftext|>": -0.1, "z": -0.2}, {"<|endoftext|>": -0.3}],
        "text_offset": [0, 1, 2, 3],
    }
    assert body["usage"]["prompt_tokens"] == 2
    assert body["usage"]["completion_tokens"] == 3 + 2 + 1 + 2


def test_the_length_penalty_reaches_the_search(client: Any) -> None:
    asked = {"prompt": ">", "use_beam_search": True, "n": 2, "max_tokens": 3, "early_stopping": True}
    texts = [
        [choice["text"] for choice in client.complete(**asked, length_penalty=penalty).json()["choices"]]
        for penalty in (2, -2.5)
    ]
    assert texts == [["bz", "b"], ["b", "bz"]]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"use_beam_search": True, "best_of": 5}, "best_of"),
        ({"use_beam_search": True, "n": 2, "best_of": 1}, "best_of"),
        ({"use_beam_search": True, "stream": True}, "stream"),
        ({"use_beam_search": True, "temperature": 0.5}, "temperature"),
        ({"use_beam_search": True, "top_p": 0}, "top_p"),
        ({"use_beam_search": True, "stop": "x"}, "stop"),
        ({"use_beam_search": True, "bad_words": ["x"]}, "bad_words"),
        ({"use_beam_search": True, "typical_p": 0.5}, "typical_p"),
        ({"use_beam_search": True, "allowed_token_ids": [98]}, "allowed_token_ids"),
        ({"use_beam_search": True, "max_tokens": 0, "echo": True}, "max_tokens"),
        ({"use_beam_search": True, "length_penalty": 11}, "length_penalty"),
        ({"use_beam_search": True, "early_stopping": "always"}, "early_stopping"),
        ({"use_beam_search": True, "early_stopping": 1}, "early_stopping"),
        ({"use_beam_search": 1}, "use_beam_search"),
        ({"length_penalty": 0.5}, "length_penalty"),
        ({"early_stopping": True}, "early_stopping"),
    ],
)
def test_unsupported_requests_for_beam_search_are_named(client: Any, body: dict[str, Any], param: str) -> None:
    answer = client.complete(**{"prompt": ">", **body})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].partition(".")[0] == param


def test_sampling_defaults_are_accepted_with_beam_search(client: Any) -> None:
    """Clients of other servers send values without effect, which are accepted."""
    body = client.complete(
        prompt=">", use_beam_search=True, temperature=0, top_p=1, top_k=-1, seed=1, max_tokens=2
    ).json()
    assert body["choices"][0]["text"] == "ax"
