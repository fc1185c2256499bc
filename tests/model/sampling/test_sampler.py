"""Sampling: distributions, independence from the batch, errors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.model.sampling.given_logits import GivenLogits, sample, score
from tests.reference.numpy_sampling import draw_token, draw_with_surprisal, keep_tokens, log_softmax

from distilgpt2_api.core.errors import GenerationError
from distilgpt2_api.core.grammar import Grammar, GrammarKind
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow, RowResult
from distilgpt2_api.model.sampling.logits_processors import LogitsProcessors
from distilgpt2_api.model.sampling.sampler import Sampler
from distilgpt2_api.model.sampling.sampling_rules import SamplingRules
from distilgpt2_api.model.step_inputs import lay_out

GPT2_VOCAB_SIZE = 50_257
VOCAB_SIZES = [1, 2, 63, 64, 65, 97, 512, 4_099, GPT2_VOCAB_SIZE]
DISTRIBUTIONS: list[dict[str, Any]] = [
    {},
    {"typical_p": 0.3},
    {"typical_p": 0.9},
    {"top_k": 5},
    {"top_k": 64},
    {"top_k": 65},
    {"top_k": 300},
    {"top_k": 3_000},
    {"top_p": 0.3},
    {"top_p": 0.9},
    {"top_p": 0.999},
    {"min_p": 0.1},
    {"min_p": 1e-5},
    {"top_k": 20, "top_p": 0.8},
    {"top_k": 100, "top_p": 0.99},
    {"top_k": 50, "min_p": 0.05},
    {"top_p": 0.95, "min_p": 0.02},
    {"top_k": 40, "top_p": 0.9, "min_p": 0.01},
    {"typical_p": 0.6, "top_p": 0.9},
    {"typical_p": 0.95, "min_p": 0.02},
    {"typical_p": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.01},
]


@dataclass(frozen=True)
class Mask:
    """A grammar's mask: ready, or failed."""

    bits: bytes | None = None
    on_wait: Callable[[], None] = lambda: None

    def wait(self) -> bytes:
        self.on_wait()
        if self.bits is None:
            raise GenerationError("the grammar is too complex")
        return self.bits


def make_mask(token_ids: Sequence[int], vocab_size: int) -> Mask:
    bits = np.zeros(-(-vocab_size // 32) * 32, dtype=np.bool_)
    bits[list(token_ids)] = True
    return Mask(np.packbits(bits, bitorder="little").tobytes())


GRAMMAR = Grammar(GrammarKind.REGEX, "a+")
"""Any grammar: the row has its own mask."""
SEQUENCE_IDS = itertools.count()
EVERY_TRUNCATION: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"top_k": 50},
    {"top_p": 0.9},
    {"min_p": 0.1},
    {"typical_p": 0.5},
]


def make_row(
    params: SamplingParams,
    *,
    seed: int = 0,
    token_ids: tuple[int, ...] = (0,),
    num_prompt: int = 1,
    mask: Mask | None = None,
    mirostat_mu: float = 6.0,
) -> PlanRow:
    return PlanRow(
        sequence_id=next(SEQUENCE_IDS),
        token_ids=token_ids,
        num_prompt_tokens=num_prompt,
        num_computed_tokens=len(token_ids) - 1,
        num_new_tokens=1,
        block_ids=(0,),
        params=params,
        seed=seed,
        is_sampling=True,
        mask=mask,
        mirostat_mu=mirostat_mu if params.mirostat else None,
    )


def make_logits(num_rows: int, vocab_size: int, *, seed: int = 0, spread: float = 3.0) -> NDArray[np.float32]:
    numbers = np.random.default_rng(seed).standard_normal((num_rows, vocab_size)) * spread - 30.0
    return numbers.astype(np.float32)


def truncation_of(params: SamplingParams) -> dict[str, Any]:
    """The parameters as the reference takes them."""
    names = (
        "top_n_sigma",
        "temperature",
        "dynatemp_range",
        "dynatemp_exponent",
        "typical_p",
        "top_k",
        "top_p",
        "min_p",
    )
    return {name: getattr(params, name) for name in names}


def draw_many(logits: NDArray[np.float32], params: SamplingParams, count: int) -> NDArray[np.int64]:
    """Samples from one row with seeds 0, 1, 2 …"""
    draws: list[int] = []
    for start in range(0, count, 256):
        rows = [make_row(params, seed=seed) for seed in range(start, min(start + 256, count))]
        draws += [token_of(result) for result in sample(np.repeat(logits[None], len(rows), axis=0), rows)]
    return np.array(draws)


def token_of(result: RowResult) -> int:
    assert result.error is None
    assert result.token_id is not None
    return result.token_id


def chi_square(
    draws: NDArray[np.int64], token_ids: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> tuple[float, int]:
    """Pearson's statistic and its degrees of freedom; cells with fewer than 8 expected draws are one cell."""
    expected = probabilities * len(draws)
    observed = np.bincount(draws, minlength=int(max(draws.max(), token_ids.max())) + 1)[token_ids].astype(np.float64)
    is_rare = expected < 8
    if is_rare.any():
        expected = np.append(expected[~is_rare], expected[is_rare].sum())
        observed = np.append(observed[~is_rare], observed[is_rare].sum())
    return float(((observed - expected) ** 2 / expected).sum()), len(expected) - 1


def critical_value(degrees: int) -> float:
    """The critical value of chi-square at 0.1 %, by Wilson and Hilferty's approximation (1931)."""
    return float(degrees * (1 - 2 / (9 * degrees) + 3.09 * np.sqrt(2 / (9 * degrees))) ** 3)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 7},
        {"top_k": 100},
        {"top_p": 0.6},
        {"min_p": 0.2},
        {"temperature": 0.8, "top_k": 30, "top_p": 0.9, "min_p": 0.05},
        {"typical_p": 0.5, "temperature": 1.3},
        {"temperature": 0.8, "typical_p": 0.8, "top_k": 30, "top_p": 0.9, "min_p": 0.05},
        {"top_n_sigma": 1.5},
        {"top_n_sigma": 1.5, "temperature": 2.0},
        {"dynatemp_range": 0.8},
        {"dynatemp_range": 0.8, "dynatemp_exponent": 4.0, "min_p": 0.05},
    ],
)
def test_draws_follow_the_distribution(options: dict[str, Any]) -> None:
    """Tokens have their expected frequencies (chi-square), and truncated tokens never occur."""
    params = SamplingParams(**options)
    logits = make_logits(1, 211, spread=1.5)[0]
    draws = draw_many(logits, params, 20_000)
    token_ids, probabilities = keep_tokens(logits, **truncation_of(params))
    assert set(draws.tolist()) <= set(token_ids.tolist())
    statistic, degrees = chi_square(draws, token_ids, probabilities)
    assert statistic < critical_value(degrees)


@pytest.mark.parametrize("options", [{}, {"top_k": 30}, {"top_p": 0.9}, {"temperature": 0.7}, {"typical_p": 0.9}])
@pytest.mark.parametrize(("probability", "threshold"), [(1.0, 0.05), (0.4, 0.03), (0.4, 0.6)])
def test_xtc_excludes_the_likeliest_tokens_in_its_share_of_draws(
    probability: float, threshold: float, options: dict[str, Any]
) -> None:
    """The frequencies are those of the two distributions, with their tokens and without, in XTC's shares."""
    params = SamplingParams(xtc_probability=probability, xtc_threshold=threshold, **options)
    logits = make_logits(1, 211, spread=1.5)[0]
    draws = draw_many(logits, params, 20_000)
    expected = np.zeros(len(logits))
    for share, limit in ((probability, threshold), (1 - probability, 1.0)):
        token_ids, probabilities = keep_tokens(logits, xtc_threshold=limit, **truncation_of(params))
        expected[token_ids] += share * probabilities
    token_ids = np.flatnonzero(expected)
    assert set(draws.tolist()) <= set(token_ids.tolist())
    statistic, degrees = chi_square(draws, token_ids, expected[token_ids])
    assert statistic < critical_value(degrees)


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.6}, {"top_k": 50}, {"xtc_probability": 1.0}, {"frequency_penalty": 0.5}]
)
def test_mirostat_follows_the_surprisal_of_its_draws(options: dict[str, Any]) -> None:
    """Each draw is the reference's, and so is the limit of the next one: mu - eta (surprisal - tau)."""
    params = SamplingParams(mirostat=2, mirostat_tau=3.0, mirostat_eta=0.3, **options)
    logits = make_logits(60, 4_099, spread=2.0)
    mu = reference_mu = 6.0
    surprisals = []
    for position, row_logits in enumerate(logits):
        row = make_row(params, seed=9, token_ids=(0,) * (position + 1), num_prompt=position + 1, mirostat_mu=mu)
        (result,) = sample(row_logits[None].copy(), [row])
        token_id, surprisal = draw_with_surprisal(
            row_logits,
            seed=9,
            position=position + 1,
            largest_surprisal=reference_mu,
            xtc_probability=params.xtc_probability,
            **truncation_of(params),
        )
        reference_mu -= 0.3 * (surprisal - 3.0)
        surprisals.append(surprisal)
        assert token_of(result) == token_id
        assert result.mirostat_mu is not None
        mu = result.mirostat_mu
        assert mu == pytest.approx(reference_mu, abs=1e-4)
    if "xtc_probability" not in options:
        assert np.mean(surprisals) == pytest.approx(3.0, abs=0.6)


@pytest.mark.parametrize("mu", [0.0, 3.0, 5.5])
def test_mirostat_draws_only_tokens_below_its_limit(mu: float) -> None:
    """They have their expected frequencies (chi-square)."""
    params = SamplingParams(mirostat=2)
    logits = make_logits(1, 211, spread=1.5)[0]
    rows = [make_row(params, seed=seed, mirostat_mu=mu) for seed in range(4_000)]
    draws = np.array([token_of(one) for one in sample(np.repeat(logits[None], len(rows), axis=0), rows)])
    token_ids, probabilities = keep_tokens(logits, largest_surprisal=mu)
    assert set(draws.tolist()) <= set(token_ids.tolist())
    if len(token_ids) > 1:
        statistic, degrees = chi_square(draws, token_ids, probabilities)
        assert statistic < critical_value(degrees)


def test_rows_without_mirostat_have_no_limit() -> None:
    """Beside rows with it, whatever their order."""
    logits = make_logits(3, 500)
    plain, stateful = make_row(SamplingParams(), seed=3), make_row(SamplingParams(mirostat=2), mirostat_mu=0.5)
    results = sample(logits.copy(), [plain, stateful, plain])
    assert [result.mirostat_mu is None for result in results] == [True, False, True]
    assert [results[0], results[2]] == sample(logits[[0, 2]], [plain, plain])
    assert token_of(results[1]) == logits[1].argmax()


@pytest.mark.parametrize("options", [{}, {"top_k": 40}, {"top_p": 0.8, "min_p": 0.01}])
def test_typical_sampling_follows_the_logits_as_edited(options: dict[str, Any]) -> None:
    """Penalties, biases and bans apply before the entropy is computed, truncation after."""
    edited = make_logits(1, 211, spread=1.5)[0]
    logits = edited.copy()
    edited[[3, 5]] += 2.0
    edited[[7, 8]] -= 1.5
    edited[11] = -np.inf
    params = SamplingParams(
        typical_p=0.7, logit_bias=((3, 2.0), (5, 2.0)), presence_penalty=1.5, bad_words=((11,),), **options
    )
    rows = [make_row(params, seed=seed, token_ids=(0, 7, 8, 7)) for seed in range(2_000)]
    drawn = sample(np.repeat(logits[None], len(rows), axis=0), rows)
    token_ids, probabilities = keep_tokens(edited, **truncation_of(params))
    assert len(token_ids) < 100
    draws = np.array([token_of(result) for result in drawn])
    assert set(draws.tolist()) <= set(token_ids.tolist())
    statistic, degrees = chi_square(draws, token_ids, probabilities)
    assert statistic < critical_value(degrees)


@pytest.mark.parametrize(
    ("options", "expected"), [({}, 1), ({"temperature": 0.0}, 0), ({"typical_p": 0.999}, 0), ({"typical_p": 1.0}, 0)]
)
def test_typical_sampling_comes_before_top_k(options: dict[str, Any], expected: int) -> None:
    """With top-k 1 it samples the likeliest typical token, which may not be the likeliest of all."""
    logits = np.log(np.array([[0.5, 0.24, 0.21, 0.05]])).astype(np.float32)
    params = SamplingParams(**{"typical_p": 0.4, "top_k": 1, "num_logprobs": 1, **options})
    (result,) = sample(logits.copy(), [make_row(params)])
    assert token_of(result) == expected
    assert result.logprobs is not None
    assert [token_id for token_id, _ in result.logprobs.top] == [0]


def test_draws_from_gpt2_vocabulary_follow_the_distribution() -> None:
    """The same with a vocabulary far larger than the number of candidates."""
    ranks = np.random.default_rng(0).permutation(GPT2_VOCAB_SIZE) + 1
    logits = (-1.2 * np.log(ranks)).astype(np.float32)  # Zipf's law
    for params in (SamplingParams(), SamplingParams(top_p=0.5)):
        token_ids, probabilities = keep_tokens(logits, **truncation_of(params))
        statistic, degrees = chi_square(draw_many(logits, params, 2_000), token_ids, probabilities)
        assert degrees >= 10
        assert statistic < critical_value(degrees)


@pytest.mark.parametrize(
    ("options", "vocab_size"),
    [*itertools.product(DISTRIBUTIONS, VOCAB_SIZES)],
    ids=str,
)
def test_a_draw_is_the_reference_inverse_cdf(options: dict[str, Any], vocab_size: int) -> None:
    """Candidates give the same token as sorting the whole row, for the same random number."""
    params = SamplingParams(temperature=0.9, **options)
    logits = make_logits(6, vocab_size, seed=vocab_size)
    rows = [make_row(params, seed=seed) for seed in range(len(logits))]
    expected = [reference_draw(one, row) for one, row in zip(logits, rows, strict=True)]
    assert [token_of(one) for one in sample(logits, rows)] == expected


def reference_draw(logits: NDArray[np.float32], row: PlanRow) -> int:
    return draw_token(logits, seed=row.seed, position=len(row.token_ids), **truncation_of(row.params))


@settings(max_examples=150, deadline=None)
@given(
    logits=st.lists(st.integers(-40, 40), min_size=2, max_size=400),
    seed=st.integers(-(2**63), 2**64 - 1),
    temperature=st.sampled_from([0.3, 1.0, 1.7]),
    options=st.sampled_from(DISTRIBUTIONS),
)
def test_a_draw_is_the_reference_inverse_cdf_with_ties(
    logits: list[int], seed: int, temperature: float, options: dict[str, Any]
) -> None:
    """The same for rows full of equal logits: the lower token id is the likelier one."""
    array = np.array([logits], dtype=np.float32) / np.float32(4)
    row = make_row(SamplingParams(temperature=temperature, **options), seed=seed)
    expected = reference_draw(array[0], row)
    (result,) = sample(array, [row])
    assert token_of(result) == expected


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_untruncated_draws_are_tokens_of_the_vocabulary(vocab_size: int) -> None:
    """For any vocabulary size, also if it does not fill all groups."""
    rows = [make_row(SamplingParams(temperature=5.0), seed=seed) for seed in range(40)]
    results = sample(make_logits(40, vocab_size), rows)
    assert all(0 <= token_of(result) < vocab_size for result in results)


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_greedy_is_argmax(vocab_size: int) -> None:
    """Temperature 0 and top-k 1 give the lowest id of the largest logit, alone or beside rows of other kinds."""
    logits = np.round(make_logits(6, vocab_size))
    kinds = [SamplingParams(temperature=0.0), SamplingParams(top_k=1), SamplingParams(temperature=0.0, top_p=0.5)]
    others = [SamplingParams(), SamplingParams(top_k=50), SamplingParams(top_p=0.9)]
    rows = [make_row(params) for params in (*kinds, *others)]
    expected = logits[:3].argmax(axis=1).tolist()
    assert [token_of(one) for one in sample(logits.copy(), rows)[:3]] == expected
    assert [token_of(one) for one in sample(logits[:3].copy(), rows[:3])] == expected


EVERY_KIND = [
    SamplingParams(temperature=0.0),
    SamplingParams(),
    SamplingParams(temperature=0.7),
    SamplingParams(top_k=50),
    SamplingParams(top_k=500),
    SamplingParams(top_p=0.9),
    SamplingParams(temperature=1.5, top_p=0.99),
    SamplingParams(min_p=0.05),
    SamplingParams(top_k=50, repetition_penalty=1.3),
    SamplingParams(presence_penalty=1.0, logit_bias=((3, 5.0),), num_logprobs=2),
    SamplingParams(num_logprobs=5),
    SamplingParams(bad_words=((7,), (5, 3, 8)), num_logprobs=1),
    SamplingParams(top_p=0.9, allowed_token_ids=(11, 500, 1_234, 4_321)),
    SamplingParams(typical_p=0.7),
    SamplingParams(typical_p=0.95, top_k=20, frequency_penalty=0.5, num_logprobs=1),
    SamplingParams(top_n_sigma=1.2, dynatemp_range=0.5),
    SamplingParams(xtc_probability=0.7, xtc_threshold=0.01, num_logprobs=1),
    SamplingParams(xtc_probability=0.7, xtc_threshold=0.01, top_p=0.9),
    SamplingParams(mirostat=2),
    SamplingParams(mirostat=2, presence_penalty=0.5, repeat_last_n=2, num_logprobs=0),
]


def test_draws_do_not_depend_on_the_batch() -> None:
    """A row gives the same token and log-probabilities alone, beside others and in any order of rows."""
    logits = make_logits(len(EVERY_KIND), GPT2_VOCAB_SIZE)
    rows = [make_row(params, seed=7, token_ids=(3, 5, 3)) for params in EVERY_KIND]
    alone = [sample(logits[i : i + 1].copy(), rows[i : i + 1])[0] for i in range(len(rows))]
    assert sample(logits.copy(), rows) == alone
    order = np.random.default_rng(1).permutation(len(rows))
    assert sample(logits[order], [rows[i] for i in order]) == [alone[i] for i in order]


TOKENS = st.integers(0, 299)
ANY_PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.5, 1.0, 1.5]),
    typical_p=st.sampled_from([1.0, 1.0, 0.2, 0.95]),
    top_k=st.sampled_from([0, 0, 1, 30]),
    top_p=st.sampled_from([1.0, 1.0, 0.7]),
    min_p=st.sampled_from([0.0, 0.0, 0.05]),
    top_n_sigma=st.sampled_from([-1.0, -1.0, 1.5]),
    dynatemp_range=st.sampled_from([0.0, 0.0, 0.5]),
    xtc_probability=st.sampled_from([0.0, 0.0, 0.5]),
    mirostat=st.sampled_from([0, 0, 2]),
    frequency_penalty=st.sampled_from([0.0, 0.5]),
    bad_words=st.lists(st.lists(TOKENS, min_size=1, max_size=2).map(tuple), max_size=9).map(tuple),
    allowed_token_ids=st.one_of(st.just(()), st.lists(TOKENS, max_size=60).map(tuple)),
    grammar=st.sampled_from([None, GRAMMAR]),
    num_logprobs=st.sampled_from([None, 0, 2]),
)


@settings(max_examples=60, deadline=None)
@given(kinds=st.lists(st.tuples(ANY_PARAMS, st.integers(0, 9), st.sets(TOKENS)), min_size=1, max_size=8))
def test_any_parameters_sample_the_same_token_alone_and_in_a_batch(
    kinds: list[tuple[SamplingParams, int, set[int]]],
) -> None:
    """With any parameters in other rows; and no ban is broken."""
    logits = make_logits(len(kinds), 300)
    rows = [
        make_row(params, seed=seed, token_ids=(3, 5, seed), mask=make_mask([*allowed], 300) if params.grammar else None)
        for params, seed, allowed in kinds
    ]
    together = sample(logits.copy(), rows)
    for index, (row, result, (params, _, allowed)) in enumerate(zip(rows, together, kinds, strict=True)):
        assert sample(logits[index : index + 1].copy(), [row]) == [result]
        fine = set(range(300)) - {word[-1] for word in params.bad_words if word[:-1] in ((), (row.token_ids[-1],))}
        if params.allowed_token_ids:
            fine &= set(params.allowed_token_ids)
        if params.grammar:
            fine &= allowed
        assert (result.token_id in fine) if fine else (result.error == "every token is banned")


def test_seed_and_position_determine_the_token() -> None:
    """Another seed or position gives another random number; seeds equal modulo 2**64 give the same."""
    logits = make_logits(1, 1_000, spread=0.1)

    def draw(seed: int, length: int) -> int:
        row = make_row(SamplingParams(), seed=seed, token_ids=(0,) * length)
        return token_of(sample(logits.copy(), [row])[0])

    assert len({draw(seed, 1) for seed in range(20)}) > 15
    assert len({draw(0, length) for length in range(1, 21)}) > 15
    assert draw(-1, 3) == draw(2**64 - 1, 3)
    assert draw(5, 3) == draw(5 + 2**64, 3)


@pytest.mark.parametrize("params", EVERY_KIND, ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_with_nan_fails_alone(params: SamplingParams, bad: float) -> None:
    """A row with NaN or infinity in its logits gets an error; the other rows get their tokens."""
    logits = make_logits(3, 5_000)
    rows = [make_row(params, seed=seed) for seed in range(3)]
    expected = sample(logits.copy(), rows)
    logits[1, 4_321] = bad
    results = sample(logits, rows)
    assert results[1].token_id is None
    assert results[1].error == "the model's logits are not numbers"
    assert [results[0], results[2]] == [expected[0], expected[2]]


@pytest.mark.parametrize("options", EVERY_TRUNCATION)
def test_banned_tokens_are_never_drawn(options: dict[str, Any]) -> None:
    """Logits of -inf have no probability; a row with only -inf is an error."""
    logits = np.full((4, 6_000), -np.inf, dtype=np.float32)
    logits[:3, 5_990] = [-50.0, 0.0, 50.0]
    results = sample(logits, [make_row(SamplingParams(**options), seed=seed) for seed in range(4)])
    assert [result.token_id for result in results] == [5_990, 5_990, 5_990, None]
    assert results[3].error == "every token is banned"


@pytest.mark.parametrize("options", EVERY_TRUNCATION)
@pytest.mark.parametrize(
    ("bans", "expected"),
    [
        ({"allowed_token_ids": (3, 4, 5_999)}, {3, 4, 5_999}),
        ({"allowed_token_ids": (3, 4, 5), "bad_words": ((3,), (1, 2, 5), (9, 2, 4))}, {4}),
        ({"allowed_token_ids": (3, 4, 5), "grammar": GRAMMAR}, {5}),
        ({"grammar": GRAMMAR}, {5, 6, 5_998}),
        ({"allowed_token_ids": (3, 4), "grammar": GRAMMAR}, set()),
        ({"allowed_token_ids": (4,), "bad_words": ((1, 2, 4),)}, set()),
    ],
)
def test_only_tokens_without_a_ban_are_sampled(
    bans: dict[str, Any], options: dict[str, Any], expected: set[int]
) -> None:
    """All bans hold together, before any truncation; a row with no token left is an error."""
    params = SamplingParams(**bans, **options)
    mask = make_mask([5, 6, 5_998], 6_000) if params.grammar else None
    rows = [make_row(params, seed=seed, token_ids=(0, 1, 2), mask=mask) for seed in range(40)]
    for result in sample(make_logits(40, 6_000), rows):
        if expected:
            assert token_of(result) in expected
        else:
            assert (result.token_id, result.error) == (None, "every token is banned")


def test_a_failing_grammar_fails_only_its_row() -> None:
    """With log-probabilities or without; the other rows sample as before."""
    logits = make_logits(3, 500)
    plain = make_row(SamplingParams(num_logprobs=1), seed=3)
    stuck = make_row(SamplingParams(grammar=GRAMMAR, num_logprobs=1), mask=Mask(None))
    expected = sample(logits[[0, 2]], [plain, plain])
    assert sample(logits, [plain, stuck, plain]) == [
        expected[0],
        RowResult(error="the grammar is too complex"),
        expected[1],
    ]


def test_masks_are_waited_for_last() -> None:
    """Rows without a grammar are edited first, at any index."""
    seen = []
    mask = Mask(make_mask([5], 500).bits, on_wait=lambda: seen.append(np.isneginf(kernels.edited).sum()))
    rows = [
        make_row(SamplingParams(grammar=GRAMMAR), mask=mask),
        make_row(SamplingParams()),
        make_row(SamplingParams(bad_words=((9,),))),
    ]
    kernels = GivenLogits(make_logits(3, 500))
    results = Sampler(kernels).step(lay_out(rows), rows)
    assert seen == [1]
    assert token_of(results[0]) == 5


def test_min_tokens_bans_end_of_text() -> None:
    """The sampler bans the model's end of text until there are enough tokens."""
    logits = np.zeros((1, 10), dtype=np.float32)
    logits[0, [4, 9]] = 1.0, 2.0
    params = SamplingParams(temperature=0.0, min_tokens=2)
    drawn = [
        sample(logits.copy(), [make_row(params, token_ids=(0,) * length)], eos_token_ids=(9,))[0].token_id
        for length in (1, 2, 3)
    ]
    assert drawn == [4, 4, 9]


@pytest.mark.parametrize("num_threads", [1, 2, 3])
@pytest.mark.parametrize("num_top", [0, 1, 2, 30])
def test_scores_do_not_depend_on_other_rows_or_threads_or_on_how_many_are_listed(
    num_threads: int, num_top: int
) -> None:
    """Bit by bit, ties in the order of their ids."""
    logits = make_logits(77, 3_000).round(1)
    targets = [(37 * index) % 3_000 for index in range(77)]
    expected = [score(logits[[i]], [target], 30)[0] for i, target in enumerate(targets)]

    scores = score(logits, targets, num_top, num_threads=num_threads)

    assert [(one.token_id, one.logprob) for one in scores] == [(one.token_id, one.logprob) for one in expected]
    assert [one.top for one in scores] == [one.top[:num_top] for one in expected]


@pytest.mark.parametrize("num_top", [0, 1, 3, 300])
def test_scores_are_log_softmax(num_top: int) -> None:
    """Log-probabilities equal log-softmax in float64, listed from the likeliest down."""
    logits = make_logits(3, GPT2_VOCAB_SIZE)
    scores = score(logits.copy(), [7, 0, 2], num_top)
    for one, row in zip(scores, logits, strict=True):
        expected = log_softmax(row)
        assert one.logprob == pytest.approx(expected[one.token_id], abs=1e-6)
        assert [token_id for token_id, _ in one.top] == np.argsort(-expected)[:num_top].tolist()
        assert [logprob for _, logprob in one.top] == pytest.approx(np.sort(expected)[::-1][:num_top], abs=1e-6)
    assert [one.token_id for one in scores] == [7, 0, 2]


@pytest.mark.parametrize(
    "options",
    [
        {"bad_words": ((7,), (2, 8))},
        {"allowed_token_ids": (11, 12)},
        {"grammar": GRAMMAR},
        {"min_tokens": 5, "stop_token_ids": (3,)},
        {"no_repeat_ngram_size": 1},
        {"allowed_token_ids": (11, 12), "bad_words": ((11,),), "temperature": 0.0},
    ],
    ids=str,
)
def test_bans_do_not_change_log_probabilities(options: dict[str, Any]) -> None:
    """They are of the model's own logits, banned tokens included: no renormalisation, no -inf."""
    logits = make_logits(1, 500)
    params = SamplingParams(num_logprobs=500, **options)
    row = make_row(params, token_ids=(0, 2), mask=make_mask([11, 12], 500) if params.grammar else None)
    (result,) = sample(logits.copy(), [row], eos_token_ids=(499,))
    assert result.logprobs == score(logits.copy(), [token_of(result)], 500)[0]
    assert sum(np.exp([logprob for _, logprob in result.logprobs.top])) == pytest.approx(1.0)


def test_logprobs_are_the_models_own() -> None:
    """Temperature, penalties and truncation don't change them; a listed token has the sampled one's float."""
    logits = make_logits(4, 500)
    changed = SamplingParams(
        temperature=0.3,
        typical_p=0.9,
        top_k=20,
        logit_bias=((11, 60.0),),
        repetition_penalty=1.5,
        presence_penalty=1.0,
        num_logprobs=500,
    )
    rows = [make_row(changed, seed=1), *(make_row(SamplingParams(num_logprobs=n), seed=n) for n in (0, 3, 500))]
    results = sample(logits.copy(), rows)
    assert results[0].token_id == 11
    for result, raw, num_top in zip(results, logits, (500, 0, 3, 500), strict=True):
        assert result.logprobs is not None
        assert len(result.logprobs.top) == num_top
        assert result.logprobs == score(raw[None].copy(), [token_of(result)], num_top)[0]
        if num_top == 500:
            assert dict(result.logprobs.top)[token_of(result)] == result.logprobs.logprob


def test_rules_are_rebuilt_only_for_changed_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request's processors are built once."""
    made: list[int] = []
    processors: list[SamplingParams] = []
    make_rules, make_processors = SamplingRules.of, LogitsProcessors.__init__

    def note_rules(rows: Any, **options: Any) -> Any:
        made.append(len(rows))
        return make_rules(rows, **options)

    def note_processors(self: Any, params: SamplingParams, **options: Any) -> None:
        processors.append(params)
        make_processors(self, params, **options)

    monkeypatch.setattr(SamplingRules, "of", note_rules)
    monkeypatch.setattr(LogitsProcessors, "__init__", note_processors)
    rows = [make_row(SamplingParams(logit_bias=((1, 1.0),)), seed=seed) for seed in range(7)]
    kernels = GivenLogits(make_logits(4, 97))
    sampler = Sampler(kernels)
    for some in (rows[:4], rows[:4], rows[1:5], rows[1:5], rows[:4]):
        sampler.step(lay_out(some), some)
    assert made == [0, 4, 4, 4]
    assert len(processors) == 5
