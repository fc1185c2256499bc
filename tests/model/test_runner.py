"""The forward pass against the NumPy reference, and against itself with the work split differently."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distilgpt2_api.core.plan import StepPlan

PROMPT = [5, 99, 3, 3, 120, 77, 0, 41, 8]
LONG_PROMPT = [(17 * index * index + 5 * index) % 131 for index in range(80)]

SHAPES: dict[str, dict[str, Any]] = {
    "head size 8": {},
    "head size 16, one layer": {"n_embd": 48, "n_head": 3, "n_layer": 1},
    "head size 21, odd vocabulary": {"n_embd": 63, "n_head": 3, "vocab_size": 257},
    "head size 64, one head": {"n_embd": 64, "n_head": 1},
    "untied head": {"tie_word_embeddings": False},
    "inner width of its own": {"n_inner": 50},
    "large epsilon": {"layer_norm_epsilon": 0.1},
    "unscaled attention": {"scale_attn_weights": False},
    "attention scaled by layer": {"scale_attn_by_inverse_layer_idx": True, "n_layer": 4},
    "upcast attention is the same": {"reorder_and_upcast_attn": True},
    **{
        name: {"activation_function": name}
        for name in ("gelu_pytorch_tanh", "gelu_fast", "gelu", "relu", "silu", "swish", "tanh")
    },
}


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_float32_is_the_reference(options: dict[str, Any], make_model: Any, drive: Any) -> None:
    """Greedy tokens exactly, every log-probability of every position within 1e-4."""
    model = make_model(**options)
    driven = drive(model.path)

    assert driven.greedy(PROMPT, 40) == model.reference.greedy(PROMPT, 40)
    np.testing.assert_allclose(driven.logprobs(PROMPT), model.reference.logprobs(PROMPT)[:-1], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "tolerances"),
    [
        ({}, {"bf16": 0.03, "int8": 0.1}),
        ({"tie_word_embeddings": False}, {"bf16": 0.03, "int8": 0.1}),
        # Odd heads, and a width of which a scale's group has all: the rounding of weights alone is 0.02 and 0.075 here.
        ({"n_embd": 63, "n_head": 3}, {"bf16": 0.035, "int8": 0.11}),
    ],
)
def test_other_precisions_are_close(
    options: dict[str, Any], tolerances: dict[str, float], make_model: Any, drive: Any
) -> None:
    """Mean absolute error of the log-probabilities: weights are rounded, activations and the KV cache too."""
    model = make_model(**options)
    for precision, tolerance in tolerances.items():
        error = drive(model.path, precision).logprobs(LONG_PROMPT) - model.reference.logprobs(LONG_PROMPT)[:-1]

        assert np.abs(error).mean() < tolerance


@pytest.mark.parametrize("precision", ["f32", "bf16", "int8"])
@pytest.mark.parametrize("chunk", [1, 7, 32, 33, 64])
def test_a_prompt_in_chunks_equals_the_whole_prompt(precision: str, chunk: int, make_model: Any, drive: Any) -> None:
    """Log-probabilities of every prompt position; the last token of a chunk scores the first of the next."""
    driven = drive(make_model().path, precision)
    whole = driven.logprobs(LONG_PROMPT)

    chunked = driven.logprobs(LONG_PROMPT, chunk=chunk)

    atol = {"f32": 1e-4, "bf16": 0.5, "int8": 1.0}[precision]
    assert chunked.shape == (len(LONG_PROMPT) - 1, 131)
    np.testing.assert_allclose(chunked, whole, atol=atol)


@pytest.mark.parametrize("precision", ["f32", "bf16", "int8"])
def test_the_earlier_content_of_a_block_has_no_effect(precision: str, make_model: Any, drive: Any) -> None:
    """Exactly the same log-probabilities in fresh blocks and in blocks that another sequence has used."""
    driven = drive(make_model().path, precision)
    fresh = driven.logprobs(PROMPT, chunk=4)

    driven.logprobs([130 - token_id for token_id in LONG_PROMPT])

    np.testing.assert_array_equal(driven.logprobs(PROMPT, chunk=4), fresh)


def test_greedy_tokens_do_not_depend_on_chunks_or_blocks(make_model: Any, drive: Any) -> None:
    model = make_model()
    driven = drive(model.path, num_blocks=16)
    expected = model.reference.greedy(LONG_PROMPT, 20)

    assert driven.greedy(LONG_PROMPT, 20, chunk=13) == expected
    assert driven.greedy(LONG_PROMPT, 20, block_ids=[15, 2, 9, 0]) == expected


def test_rows_of_a_batch_equal_the_same_rows_alone(make_model: Any, drive: Any) -> None:
    """Prefills, chunks, decodes and scorings of different lengths in one step, over scattered blocks."""
    model = make_model()
    driven = drive(model.path, num_blocks=64)
    prompts = [LONG_PROMPT[: 3 + 2 * index] for index in range(32)]
    blocks = [[63 - 2 * index, 62 - 2 * index, 0, 0] for index in range(32)]
    alone = [model.reference.logits(prompt)[-1].argmax() for prompt in prompts]
    # Every third sequence has all but its last token computed, every fourth is only begun.
    begins = [len(prompt) - 1 if index % 3 == 0 else 0 for index, prompt in enumerate(prompts)]
    driven.step(
        *(
            driven.row(prompt, 0, len(prompt) - 1, table)
            for prompt, table, begin in zip(prompts, blocks, begins, strict=True)
            if begin
        )
    )
    ends = [2 if index % 4 == 1 and not begins[index] else len(prompt) for index, prompt in enumerate(prompts)]

    results = driven.step(
        *(
            driven.row(prompt, begin, end, table, num_prompt_logprobs=0 if index % 5 == 0 else None)
            for index, (prompt, begin, end, table) in enumerate(zip(prompts, begins, ends, blocks, strict=True))
        )
    )

    for index, (prompt, begin, end, result) in enumerate(zip(prompts, begins, ends, results, strict=True)):
        assert result.token_id == (alone[index] if end == len(prompt) else None)
        scored = range(begin + 1, min(end + 1, len(prompt))) if index % 5 == 0 else range(0)
        assert [entry.token_id for entry in result.prompt_logprobs] == [prompt[position] for position in scored]
        reference = model.reference.logprobs(prompt)
        for position, entry in zip(scored, result.prompt_logprobs, strict=True):
            assert entry.logprob == pytest.approx(reference[position - 1, prompt[position]], abs=1e-4)


def test_more_rows_than_the_head_takes_at_once(make_model: Any, drive: Any) -> None:
    """Sampling and scoring use the LM head in portions; no row is lost or moved."""
    model = make_model()
    driven = drive(model.path, num_blocks=150)
    rows = [driven.row([index % 131], 0, 1, [index]) for index in range(150)]
    expected = [int(model.reference.logits([index])[0].argmax()) for index in range(131)]

    assert [result.token_id for result in driven.step(*rows)] == [expected[index % 131] for index in range(150)]
    np.testing.assert_allclose(driven.logprobs(LONG_PROMPT), model.reference.logprobs(LONG_PROMPT)[:-1], atol=1e-4)


def test_rows_that_are_scored_together_keep_their_own_scores(make_model: Any, drive: Any) -> None:
    """Rows of any length, beside rows that are not scored, with different numbers of top tokens."""
    model = make_model()
    driven = drive(model.path, num_blocks=60)
    nums_top = [0, None, 2, 0, 2] * 8
    prompts = [[(7 * index + 3 * place) % 131 for place in range(1 + index)] for index in range(len(nums_top))]
    rows = [
        driven.row(prompt, 0, len(prompt), [index, 40 + index % 20], is_sampling=False, num_prompt_logprobs=num_top)
        for index, (prompt, num_top) in enumerate(zip(prompts, nums_top, strict=True))
        if len(prompt) <= 32
    ]

    for row, result in zip(rows, driven.step(*rows), strict=True):
        prompt = list(row.token_ids)
        scored = [] if row.num_prompt_logprobs is None else prompt[1:]
        assert [entry.token_id for entry in result.prompt_logprobs] == scored
        reference = model.reference.logprobs(prompt)
        for position, entry in enumerate(result.prompt_logprobs):
            assert len(entry.top) >= row.num_prompt_logprobs
            assert entry.logprob == pytest.approx(reference[position, prompt[position + 1]], abs=1e-4)


def test_a_step_may_need_no_logits(make_model: Any, drive: Any) -> None:
    """Middle chunks give empty results and still fill the cache."""
    model = make_model()
    driven = drive(model.path)

    (first,) = driven.step(driven.row(PROMPT, 0, 4, [2]))
    (second,) = driven.step(driven.row(PROMPT, 4, 9, [2]))

    assert first.token_id is None
    assert not first.prompt_logprobs
    assert second.token_id == model.reference.greedy(PROMPT, 1)[0]


def test_completion_tokens_are_not_scored_as_prompt(make_model: Any, drive: Any) -> None:
    """After a preemption the completion is computed again with the prompt; only prompt tokens are scored."""
    driven = drive(make_model().path)
    row = driven.row(PROMPT, 0, len(PROMPT), [0], num_prompt_tokens=5, num_prompt_logprobs=0)

    (result,) = driven.step(row)

    assert [entry.token_id for entry in result.prompt_logprobs] == PROMPT[1:5]
    assert result.token_id is not None


def test_the_last_position_of_the_model_works(make_model: Any, drive: Any) -> None:
    model = make_model(n_positions=70)
    driven = drive(model.path)
    prompt = LONG_PROMPT[:60]

    assert driven.greedy(prompt, 11) == model.reference.greedy(prompt, 11)  # the eleventh comes from position 69


def test_a_closed_runner_runs_nothing(make_model: Any, drive: Any) -> None:
    driven = drive(make_model().path)
    driven.runner.close()
    driven.runner.close()

    with pytest.raises(AssertionError, match="closed"):
        driven.runner.run(StepPlan(rows=[driven.row([1], 0, 1, [0])]))


@pytest.mark.parametrize("precision", ["f32", "bf16", "int8"])
def test_block_bytes_are_known_before_loading(precision: str, make_model: Any, drive: Any) -> None:
    """The planned and the allocated memory agree."""
    from distilgpt2_api.core.config import Precision
    from distilgpt2_api.model.kernels.kv_cache import kv_block_bytes

    runner = drive(make_model(n_embd=63, n_head=3).path, precision).runner

    assert runner._forward_pass.kv_block_bytes == kv_block_bytes(runner.config, Precision(precision))


@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_a_block_of_all_layers_is_one_piece_of_memory(precision: str, make_model: Any, drive: Any) -> None:
    """So the pages in use, which may be huge, grow with the blocks in use and not with the layers."""
    driven = drive(make_model(n_layer=3).path, precision)
    forward_pass = driven.runner._forward_pass
    before = forward_pass._cache.copy()
    driven.runner.run(StepPlan(rows=[driven.row(PROMPT, 0, len(PROMPT), [2])]))

    changed = np.flatnonzero(forward_pass._cache != before)
    assert {changed.min() // forward_pass.kv_block_bytes, changed.max() // forward_pass.kv_block_bytes} == {2}
    layer_bytes = forward_pass.kv_block_bytes // 3
    assert np.unique(changed // layer_bytes).tolist() == [6, 7, 8]


def test_two_runners_do_not_disturb_each_other(make_model: Any, drive: Callable[..., Any]) -> None:
    model, other = make_model(), make_model(n_embd=64)
    first, second = drive(model.path), drive(other.path)

    assert first.greedy(PROMPT, 5) == model.reference.greedy(PROMPT, 5)
    assert second.greedy(PROMPT, 5) == other.reference.greedy(PROMPT, 5)
    assert first.greedy(PROMPT, 5) == model.reference.greedy(PROMPT, 5)


def test_a_model_freed_on_another_thread_leaves_signals_alone(make_model: Any) -> None:
    """In a separate process, because a failure would kill it."""
    program = f"""
import os, signal, threading
from pathlib import Path
from distilgpt2_api.model.runner import Runner
from distilgpt2_api.settings import Settings
signal.signal(signal.SIGTERM, lambda *_: print("alive"))
path = Path({str(make_model().path)!r})
config = Settings(precision="f32", num_threads=1).engine_config()
runners = [Runner.load(path, config, num_blocks=4, cache_folder=None, report=print)]
thread = threading.Thread(target=runners.clear)
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGTERM)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "alive\n"), result.stderr
