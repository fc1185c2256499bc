"""The kernels' draws alone: the likeliest tokens, random numbers, typical tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.reference.numpy_sampling import list_likeliest, log_softmax, mix, uniform

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.seeds import sequence_seed
from distilgpt2_api.model.kernels.draws import DrawBatch, sampling_draws
from distilgpt2_api.model.kernels.kernel_engine import KernelEngine
from distilgpt2_api.model.kernels.structures import Model

INF = float("inf")


def draw(
    logits: NDArray[np.float32], params: SamplingParams, *, seeds: list[int], positions: list[int] | None = None
) -> DrawBatch:
    """Draws from rows (R, V), or once for each seed from one row (V,)."""
    rows = np.ascontiguousarray(np.broadcast_to(logits, (len(seeds), logits.shape[-1])))
    draws = DrawBatch(sampling_draws([params] * len(seeds), seeds, [0] * len(seeds), vocab_size=rows.shape[1]))
    draws.positions[:] = positions or [1] * len(seeds)
    engine = KernelEngine(Model(vocab_size=rows.shape[1]), num_threads=1)
    engine.draw(draws, rows, rows)
    engine.close()
    return draws


def assert_lists_likeliest(logits: NDArray[np.float32], count: int) -> None:
    draws = draw(logits, SamplingParams(temperature=0.0, num_logprobs=count), seeds=[0] * len(logits))
    for row, token_ids, logprobs in zip(logits, draws.top_ids, draws.top_logprobs, strict=True):
        assert token_ids.tolist() == list_likeliest(row, count)
        np.testing.assert_allclose(logprobs, log_softmax(row)[token_ids], atol=1e-6)


@pytest.mark.parametrize("vocab_size", [1, 2, 7, 15, 16, 17, 255, 256, 257, 4_095, 4_161, 50_257])
@pytest.mark.parametrize("count", [1, 2, 64, 200, 3_000])
def test_the_likeliest_tokens_are_listed(vocab_size: int, count: int) -> None:
    """For vocabularies that do and don't fill whole spans, and smaller than the count."""
    logits = np.random.default_rng(vocab_size).standard_normal((3, vocab_size)).astype(np.float32)
    assert_lists_likeliest(logits, count)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_likeliest_tokens_are_listed_among_equals(data: st.DataObject) -> None:
    """Rows with many equal, banned and zero logits of either sign."""
    vocab_size = data.draw(st.integers(1, 3_000))
    values = np.array([-np.inf, -2.0, -0.0, 0.0, 1.0, 3.0], dtype=np.float32)
    seed = data.draw(st.integers(0, 2**32))
    logits = np.random.default_rng(seed).choice(values, size=(2, vocab_size))
    logits[:, data.draw(st.integers(0, vocab_size - 1))] = 2.0
    assert_lists_likeliest(logits, data.draw(st.integers(1, 80)))


@settings(max_examples=60, deadline=None)
@given(
    logits=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=600),
    count=st.integers(1, 50),
)
def test_the_likeliest_tokens_of_any_numbers_are_listed(logits: list[float], count: int) -> None:
    """From the smallest to the largest floats."""
    row = np.array([*logits, 0.0], dtype=np.float32)
    draws = draw(row, SamplingParams(temperature=0.0, num_logprobs=count), seeds=[0])
    assert draws.top_ids[0].tolist() == list_likeliest(row, count)


def test_the_reference_is_splitmix64() -> None:
    """The published generator's first outputs from state 0 (Steele, Lea and Flood 2014), as 53-bit fractions."""
    outputs = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert mix(0) == 0
    assert [uniform(0, position) for position in range(3)] == [(output >> 11) / 2**53 for output in outputs]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(-(2**63), 2**64 - 1), position=st.integers(0, 2**20))
def test_random_numbers_are_the_references(seed: int, position: int) -> None:
    """A draw from 65 536 equally likely tokens takes the one at the random number's share."""
    draws = draw(np.zeros(65_536, np.float32), SamplingParams(), seeds=[seed], positions=[position])
    assert draws.token_ids.tolist() == [int(uniform(seed, position) * 65_536)]


@pytest.mark.parametrize("along", ["seeds", "positions"])
def test_numbers_are_uniform(along: str) -> None:
    """Mean and variance of U(0, 1), equal deciles, and uncorrelated neighbours."""
    count, size = 20_000, 1_000
    several, same = list(range(count)), [5] * count
    seeds, positions = (several, same) if along == "seeds" else (same, several)
    draws = draw(np.zeros(size, np.float32), SamplingParams(), seeds=seeds, positions=positions)
    numbers = (draws.token_ids + 0.5) / size
    assert abs(numbers.mean() - 0.5) < 0.008
    assert abs(numbers.var() - 1 / 12) < 0.003
    assert np.bincount((numbers * 10).astype(int)).min() > 1_850
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.025


def test_sequence_seeds_are_distinct_and_stable() -> None:
    """Sequence 0 keeps the request's seed; the others differ from it, from each other and between requests."""
    seeds = {sequence_seed(seed, index) for seed in range(-50, 50) for index in range(50)}
    assert len(seeds) == 5_000
    assert sequence_seed(-1, 0) == 2**64 - 1
    assert sequence_seed(42, 0) == 42
    assert sequence_seed(0, 1) == 0xE220A8397B1DCDAF
    assert all(0 <= seed < 2**64 for seed in seeds)


def sampled(logits: list[float] | NDArray[np.float32], typical_p: float, temperature: float = 1.0) -> set[int]:
    """Tokens that occur in 2000 draws."""
    row = np.array(logits, dtype=np.float32)
    params = SamplingParams(typical_p=typical_p, temperature=temperature)
    return set(draw(row, params, seeds=list(range(2_000))).token_ids.tolist())


@pytest.mark.parametrize(
    ("typical_p", "expected"),
    [
        (1e-6, {1}),
        (0.2, {1}),
        (0.25, {1, 2}),
        (0.4, {1, 2}),
        (0.5, {0, 1, 2}),
        (0.94, {0, 1, 2}),
        (0.96, {0, 1, 2, 3}),
        (1.0, {0, 1, 2, 3}),
    ],
)
def test_the_most_typical_token_need_not_be_the_likeliest(typical_p: float, expected: set[int]) -> None:
    """Probabilities 0.5, 0.24, 0.21, 0.05: the entropy is 1.167 nats, and the tokens' information 0.693, 1.427, 1.561,
    2.996. So the distances are 0.474, 0.260, 0.394, 1.829, and the tokens come in the order 1, 2, 0, 3.
    """
    assert sampled(np.log([0.5, 0.24, 0.21, 0.05]).astype(np.float32), typical_p) == expected


def test_the_temperature_applies_first() -> None:
    """Distances are computed from the distribution after the temperature."""
    logits = np.log(np.array([0.5, 0.24, 0.21, 0.05])).astype(np.float32)
    assert sampled(logits, 0.2) == {1}
    assert sampled(logits, 0.2, temperature=0.25) == {0}
    assert sampled(logits * 0.25, 0.2, temperature=0.25) == sampled(logits, 0.2)


@pytest.mark.parametrize("num_tokens", [1, 2, 40])
def test_equally_typical_tokens_are_kept_together(num_tokens: int) -> None:
    """If all are equally typical, all are kept, for any `typical_p`."""
    for typical_p in (1e-9, 0.5, 0.999):
        assert sampled([0.25] * num_tokens, typical_p) == set(range(num_tokens))


def test_banned_tokens_stay_banned_and_count_for_nothing() -> None:
    """-inf has no mass and no information, and is never kept."""
    logits = [-INF, *np.log([0.5, 0.24, 0.21, 0.05]), -INF]
    for typical_p, expected in ((1e-6, {2}), (0.5, {1, 2, 3}), (0.999999999, {1, 2, 3, 4}), (1.0, {1, 2, 3, 4})):
        assert sampled(logits, typical_p) == expected


def test_one_token_left_is_typical() -> None:
    assert sampled([-INF, -80.0, -INF], 0.01) == {1}
    assert sampled([0.0, 1e6, -1e6], 0.5, temperature=1e-4) == {1}


@settings(max_examples=60, deadline=None)
@given(
    logits=st.lists(st.floats(-60, 60, width=32), min_size=1, max_size=200),
    typical_p=st.floats(1e-9, 1.0),
    temperature=st.floats(0.05, 20.0),
)
def test_sampled_tokens_are_typical_by_the_definition(
    logits: list[float], typical_p: float, temperature: float
) -> None:
    """The nearest tokens until their probability reaches p, computed in float64; within rounding at the border."""
    tokens = sampled(logits, typical_p, temperature)
    scaled = np.array(logits, dtype=np.float32).astype(np.float64) / temperature
    log_probabilities = scaled - scaled.max() - np.log(np.exp(scaled - scaled.max()).sum())
    probabilities = np.exp(log_probabilities)
    distances = np.abs(-log_probabilities + (probabilities * log_probabilities).sum())
    limit = distances[[*tokens]].max()
    slack = 1e-4 * (1 + np.minimum(distances, 120.0))  # of float32 exponents
    is_surely_kept = (distances < limit - slack) & (probabilities > 0.02)
    assert set(np.flatnonzero(is_surely_kept).tolist()) <= tokens, "no nearer token is left out"
    assert probabilities[distances < limit - 2 * slack].sum() <= typical_p + 1e-5, "no more tokens than necessary"
