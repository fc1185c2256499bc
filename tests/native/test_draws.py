"""Draws and log-probabilities against NumPy in float64, on every target; rows of a step draw as rows given alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.native.conftest import all_targets, driver_command
from tests.native.driver import DRAW, Drawn, Driver, Row
from tests.native.test_step import random_tensors
from tests.reference.numpy_sampling import draw_token, draw_with_surprisal, list_likeliest, log_softmax

VOCAB_SIZES = (1, 2, 15, 16, 17, 255, 256, 257, 300, 4_099, 50_257)
PARAMETERS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.0},
    {"temperature": 1e-5},
    {"temperature": 2.0},
    {"temperature": 100.0},
    {"top_k": 1},
    {"top_k": 2},
    {"top_k": 50},
    {"top_k": 700},
    {"top_k": 3_000},
    {"top_k": 2**31 - 1},
    {"top_p": 0.0},
    {"top_p": 1e-9},
    {"top_p": 0.4},
    {"top_p": 0.95},
    {"top_p": 0.99},
    {"top_p": 0.999, "temperature": 1.6},
    {"top_p": 0.99999},
    {"min_p": 1e-9},
    {"min_p": 0.02},
    {"min_p": 1.0},
    {"typical_p": 1e-6},
    {"typical_p": 0.5},
    {"typical_p": 0.95},
    {"typical_p": 0.9, "temperature": 0.6},
    {"typical_p": 0.999, "temperature": 1.8},
    {"top_k": 40, "top_p": 0.9},
    {"top_k": 40, "top_p": 0.9, "min_p": 0.1, "temperature": 0.7},
    {"top_k": 900, "min_p": 0.001},
    {"top_p": 0.9, "min_p": 0.05},
    {"typical_p": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.01},
    {"top_n_sigma": 1e-9},
    {"top_n_sigma": 1.1},
    {"top_n_sigma": 2.7, "temperature": 1.5},
    {"top_n_sigma": 100.0},
    {"top_n_sigma": 1.3, "typical_p": 0.7, "top_k": 30},
    {"dynatemp_range": 0.5},
    {"dynatemp_range": 2.0, "dynatemp_exponent": 0.3, "temperature": 0.7},
    {"dynatemp_range": 0.7, "dynatemp_exponent": 2.0, "top_n_sigma": 2.1, "top_p": 0.9},
    {"xtc_probability": 1.0, "xtc_threshold": 0.0},
    {"xtc_probability": 1.0, "xtc_threshold": 0.013},
    {"xtc_probability": 0.5, "xtc_threshold": 0.1},
    {"xtc_probability": 1.0, "xtc_threshold": 0.51},
    {"xtc_probability": 1.0, "xtc_threshold": 0.03, "top_k": 40},
    {"xtc_probability": 1.0, "xtc_threshold": 0.0011, "top_p": 0.97},
    {"xtc_probability": 1.0, "xtc_threshold": 0.07, "typical_p": 0.9, "top_n_sigma": 2.9},
    {"xtc_probability": 0.6, "xtc_threshold": 0.07, "min_p": 0.02, "temperature": 1.4},
    {"largest_surprisal": 0.0},
    {"largest_surprisal": 3.7},
    {"largest_surprisal": 9.1, "temperature": 0.8},
    {"largest_surprisal": 1e6},
    {"largest_surprisal": 6.3, "top_k": 700},
    {"largest_surprisal": 5.1, "top_p": 0.99},
    {"largest_surprisal": 7.7, "xtc_probability": 1.0, "xtc_threshold": 0.02},
    {"largest_surprisal": 4.1, "xtc_probability": 1.0, "xtc_threshold": 0.02, "min_p": 0.001, "dynatemp_range": 0.4},
)
LARGEST_TOP_K = tuple({"top_k": top_k} for top_k in range(120, 136))
"""Around the number of tokens from which on rows are kept whole."""
NEUTRAL = {
    "temperature": 1.0,
    "dynatemp_exponent": 1.0,
    "typical_p": 1.0,
    "top_p": 1.0,
    "xtc_threshold": 0.1,
    "largest_surprisal": np.inf,
    "num_top": -1,
    "given": -1,
}


def make_draws(parameters: Sequence[dict[str, Any]]) -> NDArray[np.void]:
    draws = np.zeros(len(parameters), DRAW)
    for draw, one in zip(draws, parameters, strict=True):
        for name, value in (NEUTRAL | one).items():
            draw[name] = value
    return draws


@pytest.fixture(params=all_targets())
def target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def opened(
    target: str, vocab_size: int, *, num_threads: int = 2, row: NDArray[np.float32] | None = None
) -> Iterator[Driver]:
    """A model with random logits, or with this `row` (V,) of them behind each token."""
    config = {"n_embd": 4, "n_head": 1, "n_layer": 1, "vocab_size": vocab_size, "n_positions": 64}
    config["tie_word_embeddings"] = row is None
    tensors = random_tensors(config)
    if row is not None:
        tensors["ln_f.weight"] = np.zeros(4, np.float32)
        tensors["ln_f.bias"] = np.array([1, 0, 0, 0], np.float32)
        tensors["lm_head.weight"] = np.pad(row[:, None], [(0, 0), (0, 3)])
    with Driver(
        driver_command(), config, tensors, precision="f32", target=target, num_threads=num_threads, num_blocks=4
    ) as driver:
        yield driver


def draw(target: str, draws: NDArray[np.void], logits: NDArray[np.float32], num_threads: int = 2) -> Drawn:
    with opened(target, logits.shape[1], num_threads=num_threads) as driver:
        return driver.draw(draws, logits, logits)


def rows_of(kind: str, num_rows: int, vocab_size: int) -> NDArray[np.float32]:
    random = np.random.default_rng(vocab_size)
    if kind == "ties":
        rows = random.integers(-9, 9, (num_rows, vocab_size)) / 2
    elif kind == "equals":
        rows = np.full((num_rows, vocab_size), -7.25)
    elif kind == "bans":
        rows = np.where(
            random.random((num_rows, vocab_size)) < 0.9, -np.inf, random.normal(0, 3, (num_rows, vocab_size))
        )
        rows[np.arange(num_rows), random.integers(vocab_size, size=num_rows)] = 1.5
    elif kind == "ascending":
        rows = np.tile(np.arange(vocab_size) / 9, (num_rows, 1))
    elif kind == "none":
        rows = np.full((num_rows, vocab_size), -np.inf)
    elif kind == "zipf":
        rows = -1.2 * np.log(random.permuted(np.tile(np.arange(1, vocab_size + 1), (num_rows, 1)), axis=1))
    else:
        rows = random.normal(-40, 3, (num_rows, vocab_size))
    return rows.astype(np.float32)


@pytest.mark.parametrize("kind", ["normal", "zipf", "ties", "equals", "bans"])
def test_draws_are_the_references(target: str, kind: str) -> None:
    """For every size of the vocabulary and all parameters: the same token for the same seed and position."""
    for vocab_size in VOCAB_SIZES:
        logits = rows_of(kind, len(PARAMETERS), vocab_size)
        parameters = [one | {"seed": 7 * index, "position": index} for index, one in enumerate(PARAMETERS)]
        draws = make_draws(parameters)
        expected = [draw_with_surprisal(row, **one) for row, one in zip(logits, parameters, strict=True)]
        drawn = draw(target, draws, logits)
        assert drawn.token_ids.tolist() == [token_id for token_id, _ in expected], vocab_size
        for one, surprisal, (_, exact) in zip(parameters, drawn.surprisals, expected, strict=True):
            if "largest_surprisal" in one:
                assert surprisal == pytest.approx(exact, abs=1e-5), (vocab_size, one)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e4, 1e30])
def test_logits_of_any_size(target: str, scale: float) -> None:
    """Nearly equal ones, and ones of which the exponential is 0."""
    logits = (np.random.default_rng(0).standard_normal((len(PARAMETERS), 700)) * scale).astype(np.float32)
    parameters = [one | {"seed": index, "position": 3} for index, one in enumerate(PARAMETERS)]
    if scale < 1e-20:  # the reference's float64 has too few digits to order the surprisals
        parameters = [one | {"typical_p": 1.0} for one in parameters]
    expected = [draw_token(row, **one) for row, one in zip(logits, parameters, strict=True)]
    assert draw(target, make_draws(parameters), logits).token_ids.tolist() == expected


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("vocab_size", [1, 300, 5_000])
def test_rows_without_numbers_draw_nothing(target: str, bad: float, vocab_size: int) -> None:
    """NaN or infinity anywhere, or only -inf; the rows beside them draw as before."""
    logits = np.zeros((2 * len(PARAMETERS), vocab_size), np.float32)
    index = np.random.default_rng(0).integers(vocab_size, size=len(PARAMETERS))
    logits[np.arange(len(PARAMETERS)), index] = bad
    if bad == -np.inf:
        logits[: len(PARAMETERS)] = bad
    drawn = draw(target, make_draws([{"num_top": 2} | one for one in 2 * PARAMETERS]), logits)
    assert (drawn.token_ids[: len(PARAMETERS)] == -1).all()
    assert not np.isfinite(drawn.largest[: len(PARAMETERS)]).any()
    assert (drawn.token_ids[len(PARAMETERS) :] >= 0).all()
    assert (drawn.largest[len(PARAMETERS) :] == 0).all()


@pytest.mark.parametrize("kind", ["normal", "ties", "bans"])
def test_log_probabilities(target: str, kind: str) -> None:
    """Drawn tokens, given ones, and the likeliest ones, of which there may be fewer."""
    for vocab_size in VOCAB_SIZES:
        logits = rows_of(kind, 8, vocab_size)
        given = [-1, 0, vocab_size - 1, vocab_size // 2] * 2
        nums_top = [0, 1, 2, 5, 64, 100, 3_000, vocab_size]
        draws = make_draws([{"given": one, "num_top": num} for one, num in zip(given, nums_top, strict=True)])
        drawn = draw(target, draws, logits)
        for index, (row, num_top) in enumerate(zip(logits, nums_top, strict=True)):
            num_listed = min(num_top, vocab_size)
            expected = log_softmax(row)
            likeliest = list_likeliest(row, num_listed)
            if given[index] >= 0:
                assert drawn.token_ids[index] == given[index]
            assert drawn.top_ids[index][:num_listed].tolist() == likeliest
            np.testing.assert_allclose(drawn.logprobs[index], expected[drawn.token_ids[index]], atol=1e-6)
            np.testing.assert_allclose(drawn.top_logprobs[index][:num_listed], expected[likeliest], atol=1e-6)


def test_log_probabilities_of_an_edited_row_are_the_models(target: str) -> None:
    raw = rows_of("normal", 3, 1_000)
    logits = raw.copy()
    logits[:, 7] += 60
    draws = make_draws([{"num_top": num} for num in (-1, 0, 3)])
    with opened(target, 1_000) as driver:
        drawn = driver.draw(draws, logits, raw)
    assert drawn.token_ids.tolist() == [7, 7, 7]
    np.testing.assert_allclose(drawn.logprobs[1:], [log_softmax(row)[7] for row in raw[1:]], atol=1e-6)
    assert drawn.top_ids[2].tolist() == list_likeliest(raw[2], 3)


def test_other_rows_and_threads_change_no_bit(target: str) -> None:
    logits = rows_of("zipf", len(PARAMETERS), 5_000)
    draws = make_draws([one | {"seed": 5, "num_top": index % 4 - 1} for index, one in enumerate(PARAMETERS)])
    together = draw(target, draws, logits, 1)
    order = np.random.default_rng(0).permutation(len(draws))
    for num_threads in (2, 3):
        again = draw(target, draws[order], logits[order], num_threads)
        assert np.array_equal(again.token_ids, together.token_ids[order])
        assert np.array_equal(again.logprobs, together.logprobs[order])
        assert np.array_equal(again.top_logprobs, together.top_logprobs[order])
    with opened(target, 5_000) as driver:
        for index in range(len(draws)):
            part = slice(index, index + 1)
            alone = driver.draw(draws[part], logits[part], logits[part])
            assert alone.token_ids == together.token_ids[part]
            assert alone.logprobs == together.logprobs[part]


@pytest.mark.parametrize("vocab_size", [1, 31, 257, 3_000])
@pytest.mark.parametrize("num_edited", [0, 1, 70, 130])
def test_a_step_draws_from_its_own_logits(target: str, vocab_size: int, num_edited: int) -> None:
    """In more portions than one, beside rows that are edited: their logits are handed over and nothing is drawn."""
    ids = [index % vocab_size for index in range(50)]
    rows = [Row(token_ids=ids, begin=0, block_ids=[2 * index, 2 * index + 1]) for index in range(2)]
    tokens = [(3 * index) % 100 for index in range(150)]
    draws = make_draws(
        [
            {"token": token, "seed": index, "position": token % 50 + 1, "num_top": index % 3 - 1}
            | PARAMETERS[index % len(PARAMETERS)]
            for index, token in enumerate(tokens)
        ]
    )
    draws[149]["sequence"], draws[149]["token"], draws[149]["position"] = 1, -1, 50  # behind its last token
    with opened(target, vocab_size) as driver:
        every_logits, _ = driver.sample(rows, draws, num_edited=len(draws))
        expected = driver.draw(draws, every_logits, every_logits)
        logits, drawn = driver.sample(rows, draws, num_edited=num_edited)
    assert np.array_equal(logits, every_logits[:num_edited])
    assert np.array_equal(drawn.token_ids[num_edited:], expected.token_ids[num_edited:])
    assert np.array_equal(drawn.logprobs[num_edited:], expected.logprobs[num_edited:])
    assert np.array_equal(drawn.top_ids[num_edited:], expected.top_ids[num_edited:])


@pytest.mark.parametrize(
    ("kind", "num_threads"),
    [
        *((kind, 3) for kind in ("normal", "zipf", "ties", "equals", "bans", "ascending", "nan", "inf", "none")),
        ("zipf", 1),
    ],
)
def test_a_step_draws_as_from_whole_rows(target: str, kind: str, num_threads: int) -> None:
    """Also if only the likeliest tokens are kept of a row, by several threads: the same token to the last bit."""
    parameters = [one | {"seed": index} for index, one in enumerate(PARAMETERS + LARGEST_TOP_K)]
    draws = make_draws(parameters)
    draws["position"] = 1
    for vocab_size in (1, 128, 129, 300, 9_000):
        row = rows_of("normal" if kind in ("nan", "inf") else kind, 1, vocab_size)[0]
        if kind in ("nan", "inf"):
            row[vocab_size // 2] = float(kind)
        with opened(target, vocab_size, num_threads=num_threads, row=row) as driver:
            _, drawn = driver.sample([Row(token_ids=[0], begin=0, block_ids=[0])], draws)
            logits = np.tile(row, (len(draws), 1))
            expected = driver.draw(draws, logits, logits)
        assert np.array_equal(drawn.token_ids, expected.token_ids), vocab_size
        assert np.array_equal(drawn.largest, expected.largest, equal_nan=True)
        assert np.array_equal(drawn.surprisals, expected.surprisals)
