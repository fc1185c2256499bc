"""Random numbers as a function of seed and position."""

from __future__ import annotations

import numpy as np

from distilgpt2_api.core.seeds import sequence_seed
from distilgpt2_api.model.sampling.random_numbers import draw_uniforms, make_keys, open_streams


def test_stream_of_seed_0_is_splitmix64() -> None:
    """The published generator's first outputs from state 0, as 53-bit fractions."""
    outputs = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    keys = make_keys(open_streams([0, 0, 0]), [0, 1, 2])
    assert draw_uniforms(keys).tolist() == [(output >> 11) / 2**53 for output in outputs]


def test_numbers_are_uniform_along_seeds_and_positions() -> None:
    """Mean and variance of U(0, 1), equal deciles, and uncorrelated neighbours; also for numbers of one key."""
    count = 20_000
    along_seeds = draw_uniforms(make_keys(open_streams(range(count)), [5] * count))
    along_positions = draw_uniforms(make_keys(open_streams([5] * count), range(count)))
    along_numbers = draw_uniforms(make_keys(open_streams([5] * count), [5] * count), np.arange(count))
    for numbers in (along_seeds, along_positions, along_numbers):
        assert numbers.min() >= 0
        assert numbers.max() < 1
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
