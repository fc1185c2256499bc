"""The native step against GPT-2 in NumPy, on every target; and what a sequence gives does not depend on the others."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.native.conftest import all_targets, driver_command
from tests.native.driver import Driver, Row, quantize, to_bf16
from tests.reference.numpy_gpt2 import NumpyGpt2

PRECISIONS = ("f32", "bf16", "int8")
ALL_TARGETS = ("amx", "avx512vnni", "avxvnni", "avx2", "sse2", "i8mm", "dotprod", "neon")
SHAPES: dict[str, dict[str, Any]] = {
    "demo": {"n_embd": 64, "n_head": 4, "n_layer": 2, "vocab_size": 100, "n_positions": 128},
    "heads of one": {"n_embd": 5, "n_head": 5, "n_layer": 1, "vocab_size": 7, "n_positions": 70},
    "odd sizes": {"n_embd": 51, "n_head": 3, "n_layer": 2, "vocab_size": 33, "n_positions": 64, "n_inner": 37},
    "a wide head": {"n_embd": 512, "n_head": 1, "n_layer": 1, "vocab_size": 65, "n_positions": 40, "n_inner": 130},
    "heads of a group": {"n_embd": 192, "n_head": 3, "n_layer": 2, "vocab_size": 40, "n_positions": 64, "n_inner": 96},
    "a group and one": {"n_embd": 129, "n_head": 3, "n_layer": 1, "vocab_size": 31, "n_positions": 64, "n_inner": 257},
    "options": {
        "n_embd": 48,
        "n_head": 4,
        "n_layer": 3,
        "vocab_size": 64,
        "n_positions": 64,
        "scale_attn_weights": False,
        "scale_attn_by_inverse_layer_idx": True,
        "tie_word_embeddings": False,
        "layer_norm_epsilon": 1e-3,
    },
}
ERRORS = {"f32": 2e-5, "bf16": 0.02, "int8": 0.04}
"""Largest error of a logit over the largest logit: rounded weights apart, of the int8 cache and rounded activations."""


def random_tensors(config: Mapping[str, Any], seed: int = 0) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    width, inner = config["n_embd"], config.get("n_inner") or 4 * config["n_embd"]

    def normal(*shape: int, scale: float = 1.0, mean: float = 0.0) -> NDArray[np.float32]:
        return (random.standard_normal(shape) * scale + mean).astype(np.float32)

    tensors = {"wte.weight": normal(config["vocab_size"], width), "wpe.weight": normal(config["n_positions"], width)}
    for layer in range(config["n_layer"]):
        for norm in ("ln_1", "ln_2"):
            tensors[f"h.{layer}.{norm}.weight"] = normal(width, scale=0.2, mean=1)
            tensors[f"h.{layer}.{norm}.bias"] = normal(width, scale=0.2)
        for name, num_in, num_out in (
            ("attn.c_attn", width, 3 * width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", width, inner),
            ("mlp.c_proj", inner, width),
        ):
            tensors[f"h.{layer}.{name}.weight"] = normal(num_in, num_out, scale=num_in**-0.5)
            tensors[f"h.{layer}.{name}.bias"] = normal(num_out, scale=0.2)
    tensors |= {"ln_f.weight": normal(width, scale=0.2, mean=1), "ln_f.bias": normal(width, scale=0.2)}
    if not config.get("tie_word_embeddings", True):
        tensors["lm_head.weight"] = normal(config["vocab_size"], width)
    return tensors


def rounded(tensors: Mapping[str, NDArray[np.float32]], precision: str) -> dict[str, NDArray[Any]]:
    """The tensors with matrices as the precision keeps them."""
    result: dict[str, NDArray[Any]] = {}
    for name, values in tensors.items():
        is_matrix = values.ndim == 2 and name != "wpe.weight"
        is_transposed = name.startswith("h.")
        if not is_matrix or precision == "f32":
            result[name] = values
        elif precision == "bf16":
            result[name] = (to_bf16(values).astype(np.uint32) << 16).view(np.float32)
        else:
            weight, scale = quantize(values.T if is_transposed else values)
            whole = weight * scale[:, None]
            result[name] = whole.T if is_transposed else whole
    return result


Open = Callable[..., Driver]


@pytest.fixture(params=all_targets())
def target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_driver(target: str) -> Open:
    return open_driver_of(target)


def open_driver_of(target: str) -> Open:
    def open_model(
        config: Mapping[str, Any], tensors: Any, precision: str, num_threads: int = 2, num_blocks: int = 24
    ) -> Driver:
        return Driver(
            driver_command(),
            config,
            tensors,
            precision=precision,
            target=target,
            num_threads=num_threads,
            num_blocks=num_blocks,
        )

    return open_model


def tokens(config: Mapping[str, Any], num: int, seed: int = 1) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(config["vocab_size"], size=num)]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_logits_are_those_of_the_reference(open_driver: Open, precision: str, shape: dict[str, Any]) -> None:
    tensors = random_tensors(shape)
    ids = tokens(shape, shape["n_positions"] - 1)
    expected = NumpyGpt2(shape, rounded(tensors, precision)).logits(ids)

    with open_driver(shape, tensors, precision) as driver:
        logits = driver.step([Row(token_ids=ids, begin=0, block_ids=[9, 2, 7, 4])], len(ids))

    assert np.abs(logits - expected).max() <= ERRORS[precision] * np.abs(expected).max()


def test_an_outlier_leaves_the_other_activations_their_bits_on_amx(target: str, open_driver: Open) -> None:
    """Larger GPT-2 models have a few such features. On AMX a row has one scale."""
    if target != "amx":
        pytest.skip("groups of 64 have a scale each")
    config = SHAPES["demo"] | {"n_layer": 1}
    tensors = random_tensors(config)
    for norm, matrix in (("ln_1", "attn.c_attn"), ("ln_2", "mlp.c_fc")):
        tensors[f"h.0.{norm}.weight"][5] *= 200
        tensors[f"h.0.{matrix}.weight"][5] = 0  # no product depends on it
    ids = tokens(config, 100)
    expected = NumpyGpt2(config, rounded(tensors, "int8")).logits(ids)

    with open_driver(config, tensors, "int8") as driver:
        logits = driver.step([Row(token_ids=ids, begin=0, block_ids=[3, 1, 0, 2])], len(ids))

    assert np.abs(logits - expected).max() <= ERRORS["int8"] * np.abs(expected).max()


@pytest.mark.parametrize("activation", ["gelu_new", "gelu", "relu", "silu", "tanh"])
@pytest.mark.parametrize("bias", [0, 20, 200])
def test_activations(open_driver: Open, activation: str, bias: float) -> None:
    """Large numbers of both signs, too, for which exponentials end."""
    config = SHAPES["demo"] | {"activation_function": activation}
    tensors = random_tensors(config)
    tensors["h.0.mlp.c_fc.bias"][::2] += bias
    tensors["h.0.mlp.c_fc.bias"][1::2] -= bias
    ids = tokens(config, 40)
    expected = NumpyGpt2(config, tensors).logits(ids)

    with open_driver(config, tensors, "f32") as driver:
        logits = driver.step([Row(token_ids=ids, begin=0, block_ids=[1, 0])], len(ids))

    assert np.abs(logits - expected).max() <= ERRORS["f32"] * np.abs(expected).max()


def test_scores_that_are_far_apart(open_driver: Open) -> None:
    """So far that most weights of attention are 0. In float32: rounded keys would make others the nearest ones."""
    config = SHAPES["demo"] | {"n_layer": 1}
    tensors = random_tensors(config)
    tensors["h.0.attn.c_attn.weight"][:, :64] *= 100  # the queries
    ids = tokens(config, 100)
    expected = NumpyGpt2(config, tensors).logits(ids)

    with open_driver(config, tensors, "f32") as driver:
        logits = driver.step([Row(token_ids=ids, begin=0, block_ids=[3, 1, 0, 2])], len(ids))

    assert np.abs(logits - expected).max() <= ERRORS["f32"] * np.abs(expected).max()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", ["demo", "odd sizes"])
def test_other_sequences_change_no_bit(open_driver: Open, precision: str, shape: str) -> None:
    """Alone or among others, with one, two or three threads, whole or in chunks, token by token, on a shared prefix."""
    config = SHAPES[shape]
    tensors = random_tensors(config)
    ids = tokens(config, 45)
    other = [
        Row(token_ids=tokens(config, 1 + index % 37, index), begin=0, block_ids=[8 + index, 3]) for index in range(13)
    ]
    whole = Row(token_ids=ids, begin=0, block_ids=[5, 6])
    with open_driver(config, tensors, precision, 1) as driver:
        expected = driver.step([whole], len(ids))

    for num_threads in (1, 2, 3):
        with open_driver(config, tensors, precision, num_threads) as driver:
            assert np.array_equal(driver.step([other[0], whole], len(ids)), expected)
        with open_driver(config, tensors, precision, num_threads) as driver:
            begin = 0
            for num in (1, 7, 25, 1, 11):
                row = Row(token_ids=ids[begin : begin + num], begin=begin, block_ids=[5, 6])
                logits = driver.step([*other[: begin % 12], row], num)
                assert np.array_equal(logits, expected[begin : begin + num])
                begin += num
            # The last token again, and beside it the same sequence on the first one's prefix.
            last = Row(token_ids=ids[-1:], begin=44, block_ids=[5, 6])
            shared = Row(token_ids=ids[32:], begin=32, block_ids=[5, 2])
            logits = driver.step([last, shared], 13)
            assert np.array_equal(logits, expected[32:])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", ["demo", "odd sizes", "heads of a group", "a group and one"])
def test_many_sequences_change_no_bit(open_driver: Open, precision: str, shape: str) -> None:
    """From eight sequences for each thread on, a thread attends to all heads of a sequence and rounds its row."""
    config = SHAPES[shape]
    tensors = random_tensors(config)
    prompts = [Row(token_ids=tokens(config, 1 + i % 6, i), begin=0, block_ids=[i]) for i in range(25)]
    last = [Row(token_ids=tokens(config, 1, 50 + i), begin=1 + i % 6, block_ids=[i]) for i in range(25)]

    with open_driver(config, tensors, precision, 1, num_blocks=25) as driver:
        expected = np.concatenate(
            [driver.step([row], 1) for pair in zip(prompts, last, strict=True) for row in pair][1::2]
        )

    for num_threads in (1, 2, 3):
        with open_driver(config, tensors, precision, num_threads, num_blocks=25) as driver:
            driver.step(prompts, 1)
            for num in (7, 8, 15, 16, 23, 24, 25):
                assert np.array_equal(driver.step(last[:num], num), expected[:num])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_sequences_that_continue_each_other_are_one(open_driver: Open, precision: str) -> None:
    """As drafts do: rows of one token each with the same block table, among other sequences, with several threads."""
    config = SHAPES["demo"]
    tensors = random_tensors(config)
    ids = tokens(config, 45)
    other = [Row(token_ids=tokens(config, 1 + index, index), begin=0, block_ids=[8 + index]) for index in range(5)]
    with open_driver(config, tensors, precision, 1) as driver:
        expected = driver.step([Row(token_ids=ids, begin=0, block_ids=[5, 6])], len(ids))
    for num_threads in (2, 3):
        for num_first in (1, 30, 32):
            later = [Row(token_ids=[ids[n]], begin=n, block_ids=[5, 6][: n // 32 + 1]) for n in range(num_first, 45)]
            with open_driver(config, tensors, precision, num_threads) as driver:
                driver.step([Row(token_ids=ids[:num_first], begin=0, block_ids=[5])], 1)
                logits = driver.step([*other, *later], len(later))
            assert np.array_equal(logits, expected[num_first:])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_instruction_sets_of_arm64_give_the_same_bits(shape: dict[str, Any]) -> None:
    """They differ in products of integers alone, which are exact."""
    targets = [target for target in ("i8mm", "dotprod", "neon") if target in all_targets()]
    if len(targets) < 2:
        pytest.skip("the processor has no two of them")
    tensors = random_tensors(shape)
    ids = tokens(shape, 31)
    results = []
    for target in targets:
        with open_driver_of(target)(shape, tensors, "int8") as driver:
            results.append(
                [
                    driver.step([Row(token_ids=ids[:num], begin=0, block_ids=[0])], num).tobytes()
                    for num in (*range(1, 14), 25, 31)
                ]
            )

    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("shape", ["demo", "heads of a group", "a group and one"])
def test_many_rows(open_driver: Open, shape: str) -> None:
    """Every number of rows of a tile, of several of them, and what is left of one."""
    config = SHAPES[shape] | {"n_positions": 64}
    tensors = random_tensors(config)
    ids = tokens(config, 50)
    with open_driver(config, tensors, "int8", 2) as driver:
        expected = driver.step([Row(token_ids=ids, begin=0, block_ids=[0, 1])], len(ids))
        for num_rows in range(1, 50):
            row = Row(token_ids=ids[:num_rows], begin=0, block_ids=[2, 3])
            assert np.array_equal(driver.step([row], num_rows), expected[:num_rows])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_many_rows_of_logits_of_a_wide_model(open_driver: Open, precision: str) -> None:
    """More rows than a product of that width takes at a time."""
    config = {"n_embd": 1040, "n_head": 13, "n_layer": 1, "vocab_size": 270, "n_positions": 64, "n_inner": 8}
    tensors = random_tensors(config)
    ids = tokens(config, 64)
    expected = NumpyGpt2(config, rounded(tensors, precision)).logits(ids)

    with open_driver(config, tensors, precision) as driver:
        logits = driver.step([Row(token_ids=ids, begin=0, block_ids=[0, 1])], len(ids))

    assert np.abs(logits - expected).max() <= ERRORS[precision] * np.abs(expected).max()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_head_sizes(open_driver: Open, precision: str) -> None:
    """Sizes around a quad, a vector, the 64 elements of a turn and the largest; in the cache's last blocks."""
    for size in (1, 2, 3, 4, 5, 15, 16, 17, 33, 49, 63, 64, 65, 127, 129, 255, 257, 509, 511, 512):
        config = {"n_embd": size, "n_head": 1, "n_layer": 1, "vocab_size": 3, "n_positions": 36, "n_inner": 1}
        tensors = random_tensors(config)
        ids = tokens(config, 35)
        expected = NumpyGpt2(config, rounded(tensors, precision)).logits(ids)

        with open_driver(config, tensors, precision) as driver:
            logits = driver.step([Row(token_ids=ids, begin=0, block_ids=[22, 23])], len(ids))

        assert np.abs(logits - expected).max() <= 2 * ERRORS[precision] * np.abs(expected).max(), size


def test_a_context_beyond_one_integer_sum(open_driver: Open) -> None:
    """Weighted values of 2048 tokens have one sum, and longer contexts several."""
    config = {"n_embd": 16, "n_head": 2, "n_layer": 1, "vocab_size": 40, "n_positions": 2112}
    tensors = random_tensors(config)
    ids = tokens(config, 2100)
    expected = NumpyGpt2(config, rounded(tensors, "int8")).logits(ids)
    blocks = list(range(66))
    with open_driver(config, tensors, "int8", num_blocks=132) as driver:
        logits = driver.step([Row(token_ids=ids, begin=0, block_ids=blocks)], 100)
        driver.step([Row(token_ids=ids[:2000], begin=0, block_ids=[66 + block for block in blocks])], 1)
        rest = Row(token_ids=ids[2000:], begin=2000, block_ids=[66 + block for block in blocks])
        assert np.array_equal(driver.step([rest], 100), logits)

    assert np.abs(logits - expected[-100:]).max() <= ERRORS["int8"] * np.abs(expected).max()


@pytest.mark.parametrize("num_threads", [1, 2, 3, 8])
def test_threads_run_each_item_once(num_threads: int) -> None:
    subprocess.run([*driver_command(), "pool", str(num_threads), "400"], check=True, timeout=100)


@pytest.mark.parametrize("name", ["quantum", *ALL_TARGETS])
def test_a_target_that_the_processor_lacks_is_refused(name: str) -> None:
    if name in all_targets():
        pytest.skip("the processor has it")
    config = SHAPES["demo"]
    with (
        pytest.raises((AssertionError, RuntimeError), match="does not run that target"),
        Driver(
            driver_command(),
            config,
            random_tensors(config),
            precision="int8",
            target=name,
            num_threads=1,
            num_blocks=1,
        ) as driver,
    ):
        driver.step([Row(token_ids=[1], begin=0, block_ids=[0])], 1)
