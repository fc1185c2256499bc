"""Beam search: its rules, and the same sequences as `transformers` on real kernels."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.scripted_runner import ENGINE_CONFIG

from distilgpt2_api.core.events import SilentObserver
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.beam_search import BeamOptions, BeamSearch, Hypothesis
from distilgpt2_api.engine.engine import Engine
from distilgpt2_api.engine.sync import run_request
from distilgpt2_api.model.runner import Runner
from distilgpt2_api.scheduling.scheduler import Scheduler
from distilgpt2_api.text.structured_output.grammars import GrammarCompiler

RequestBuilder = Callable[..., GenerationRequest]
GOLDEN = Path(__file__).parent.parent / "golden"
END = 9


class BareTokenizer:
    """Tokens without text: this file compares ids."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.token_bytes = self.plain_token_bytes = (b"",) * vocab_size


def begin(num_beams: int = 2, *, max_tokens: int = 8, ending: tuple[int, ...] = (END,), **options: Any) -> BeamSearch:
    bounds = {name: options.pop(name) for name in ("min_tokens", "num_top") if name in options}
    return BeamSearch(
        BeamOptions(num_beams=num_beams, **options), max_tokens=max_tokens, ending_token_ids=frozenset(ending), **bounds
    )


def shown(hypotheses: Sequence[Hypothesis]) -> list[tuple[tuple[int, ...], Any]]:
    return [(hypothesis.beam.token_ids, pytest.approx(hypothesis.score)) for hypothesis in hypotheses]


# ---- the rules


def test_the_best_continuations_of_all_beams_survive() -> None:
    """Not the best of each beam: all survivors may come from one."""
    search = begin()
    search.advance([[(1, -1.0), (2, -1.2), (3, -5.0)]])
    assert [beam.token_ids for beam in search.beams] == [(1,), (2,)]
    search.advance([[(4, -3.0), (5, -4.0)], [(6, -0.1), (7, -0.2)]])

    assert [(beam.token_ids, beam.sum_logprob) for beam in search.beams] == [((2, 6), -1.3), ((2, 7), -1.4)]
    assert not search.is_done


def test_equal_scores_rank_by_beam_then_by_token() -> None:
    """The same search gives the same result, in any order of equals."""
    search = begin()
    search.advance([[(5, -1.0), (2, -1.0), (3, -1.0)]])
    assert [beam.token_ids for beam in search.beams] == [(2,), (3,)]
    search.advance([[(8, -1.0), (7, -1.0)], [(1, -1.0), (0, -1.0)]])

    assert [beam.token_ids for beam in search.beams] == [(2, 7), (2, 8)]


def test_an_end_within_the_first_ranks_is_kept_and_a_later_one_is_not() -> None:
    """A continuation ranked after the first `num_beams` is dropped if it ends."""
    search = begin()
    search.advance([[(END, -1.0), (1, -1.1), (2, -1.2), (3, -1.3)]])
    assert shown(search.hypotheses) == [((END,), -1.0)]
    assert [beam.token_ids for beam in search.beams] == [(1,), (2,)]

    search.advance([[(4, -0.1), (5, -0.2)], [(END, -0.3), (6, -0.4)]])

    assert shown(search.hypotheses) == [((END,), -1.0)]
    assert [beam.token_ids for beam in search.beams] == [(1, 4), (1, 5)]


def test_all_first_ranks_may_end_and_later_ones_continue() -> None:
    """If every ending token outranks the others, `num_beams` continuations are still left."""
    search = begin(ending=(8, END))
    assert search.num_candidates == 4
    search.advance([[(8, -1.0), (END, -1.1), (1, -2.0), (2, -2.1)]])

    assert [beam.token_ids for beam in search.beams] == [(1,), (2,)]
    assert [hypothesis.ending_token_id for hypothesis in search.hypotheses] == [8, END]


@pytest.mark.parametrize(
    ("length_penalty", "best"), [(0.0, (END,)), (1.0, (1, 2, END)), (-1.0, (END,)), (2.0, (1, 2, END))]
)
def test_the_length_penalty_decides_between_short_and_long(length_penalty: float, best: tuple[int, ...]) -> None:
    """-1 for one token against -2 for three, including the ending one."""
    search = begin(length_penalty=length_penalty, early_stopping=True)
    search.advance([[(END, -1.0), (1, -1.5), (3, -9.0), (4, -9.0)]])
    search.advance([[(2, -0.3), (5, -8.0)], []])
    search.advance([[(END, -0.2), (6, -9.0)], []])

    assert search.is_done
    assert search.hypotheses[0].beam.token_ids == best


def test_early_stopping_true_ends_with_the_last_hypothesis_needed() -> None:
    """Although a live beam could still become better."""
    search = begin(early_stopping=True)
    search.advance([[(1, -0.1), (END, -5.0), (2, -6.0), (3, -7.0)]])
    assert not search.is_done
    search.advance([[(4, -0.1), (END, -4.0)], []])

    assert search.is_done
    assert shown(search.hypotheses) == [((1, END), -2.05), ((END,), -5.0)]


def test_early_stopping_false_continues_while_a_live_beam_scores_better() -> None:
    """By the score at its present length."""
    search = begin(early_stopping=False)
    search.advance([[(1, -0.1), (END, -5.0), (2, -6.0), (3, -7.0)]])
    search.advance([[(4, -0.1), (END, -4.0)], []])
    assert not search.is_done  # -0.2 / 2 is better than -5.
    search.advance([[(5, -20.0), (6, -21.0)]])

    assert search.is_done
    assert shown(search.hypotheses) == [((1, END), -2.05), ((END,), -5.0)]


def test_early_stopping_never_considers_the_maximum_length() -> None:
    """A sum that scores badly over three tokens scores well over a hundred."""
    search = begin(early_stopping="never", max_tokens=100)
    search.advance([[(1, -0.1), (END, -5.0), (2, -6.0), (3, -7.0)]])
    search.advance([[(4, -0.1), (END, -4.0)], []])
    search.advance([[(5, -20.0), (6, -21.0)]])
    assert not search.is_done
    search.advance([[(5, -600.0), (6, -600.0)], []])

    assert search.is_done


def test_at_the_last_length_everything_ends() -> None:
    """The best live beams become hypotheses without an ending token."""
    search = begin(max_tokens=2)
    search.advance([[(1, -0.1), (2, -0.2), (3, -7.0)]])
    search.advance([[(4, -0.1), (END, -0.2)], [(5, -3.0)]])

    assert search.is_done
    assert shown(search.hypotheses) == [((1, 4), -0.1), ((1, END), -0.15)]
    assert [hypothesis.ending_token_id for hypothesis in search.hypotheses] == [None, END]


def test_nothing_ends_before_min_tokens() -> None:
    """The ending token is skipped."""
    search = begin(min_tokens=1)
    assert search.num_candidates == 3
    search.advance([[(END, -0.1), (1, -1.0), (2, -2.0)]])
    assert not search.hypotheses
    search.advance([[(END, -0.1), (1, -5.0)], [(END, -0.1)]])

    assert shown(search.hypotheses) == [((1, END), -0.55), ((2, END), -1.05)]


def test_the_likeliest_candidates_of_each_token_are_kept_if_requested() -> None:
    search = begin(max_tokens=1, num_top=2)
    search.advance([[(1, -0.1), (2, -0.2), (3, -7.0)]])

    (token,) = search.hypotheses[1].beam.logprobs
    assert (token.token_id, token.logprob, token.top) == (2, -0.2, ((1, -0.1), (2, -0.2)))


# ---- the same as transformers


def find(engine: Engine, search: BeamSearch, prompt: list[int], build_request: RequestBuilder) -> list[Hypothesis]:
    """The search's hypotheses on a real model, computed one beam at a time."""

    def candidates(token_ids: tuple[int, ...]) -> tuple[tuple[int, float], ...]:
        request = build_request(
            [*prompt, *token_ids], max_tokens=1, temperature=0.0, ignore_eos=True, num_logprobs=search.num_candidates
        )
        (delta,) = run_request(engine, request)
        return delta.logprobs[0].top

    while not search.is_done:
        search.advance([candidates(beam.token_ids) for beam in search.beams])
    return list(search.hypotheses)


@pytest.mark.parametrize("name", ["plain", "odd", "scaled", "unscaled"])
def test_sequences_and_scores_are_those_of_transformers(name: str, build_request: RequestBuilder) -> None:
    """Every early stopping with every length penalty: tokens exactly, scores within 1e-4 or float32's own precision."""
    runner = Runner.load(
        GOLDEN / name,
        ENGINE_CONFIG,
        num_blocks=24,
        cache_folder=None,
        report=lambda note: None,
    )
    tokenizer: Any = BareTokenizer(runner.config.vocab_size)  # a fake with the parts that count
    engine = Engine(
        runner=runner,
        scheduler=Scheduler(replace(ENGINE_CONFIG, max_step_tokens=512), num_blocks=24),
        tokenizer=tokenizer,
        grammars=GrammarCompiler(tokenizer, vocab_size=runner.config.vocab_size, eos_token_ids=()),
        observer=SilentObserver(),
    )
    try:
        for golden in json.loads((GOLDEN / name / "beams.json").read_text()):
            search = begin(
                golden["num_beams"],
                max_tokens=golden["max_new_tokens"],
                min_tokens=golden.get("min_new_tokens", 0),
                ending=golden["ending"],
                length_penalty=golden["length_penalty"],
                early_stopping=golden["early_stopping"],
            )
            hypotheses = find(engine, search, golden["prompt"], build_request)
            assert len(hypotheses) == golden["num_beams"]
            best = hypotheses[: golden["num_return_sequences"]]
            assert [list(hypothesis.beam.token_ids) for hypothesis in best] == golden["completions"]
            assert [hypothesis.score for hypothesis in best] == pytest.approx(golden["scores"], rel=1e-6, abs=1e-4)
    finally:
        engine.close()
