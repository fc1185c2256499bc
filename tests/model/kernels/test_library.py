"""The native library's functions against what Python expects of them."""

from __future__ import annotations

import ctypes
import errno
import mmap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilgpt2_api.core.config import Activation, ModelConfig, Precision
from distilgpt2_api.core.errors import ModelError, UnsupportedProcessorError
from distilgpt2_api.model.kernels import kernel_engine, process_memory
from distilgpt2_api.model.kernels.kv_cache import kv_block_bytes
from distilgpt2_api.model.kernels.library import choose_target, find_targets, load_library
from distilgpt2_api.model.kernels.structures import PRECISIONS, Matrix, Model, Norm
from distilgpt2_api.model.weights.panels import PANEL, QUAD, pack_panels, panels_shape, to_bf16

LAYOUTS = st.builds(
    lambda head_size, num_heads, num_layers: ModelConfig(
        vocab_size=7,
        num_positions=64,
        num_layers=num_layers,
        num_heads=num_heads,
        width=head_size * num_heads,
        inner_width=5,
        activation=Activation.RELU,
    ),
    st.integers(1, 512),
    st.integers(1, 4),
    st.integers(1, 3),
)


def native_block_bytes(config: ModelConfig, precision: Precision) -> int:
    norm, matrix = Norm(None, None), Matrix(None, None, None, 1, 1)
    sizes = (config.num_layers, config.num_heads, config.head_size, config.width, config.inner_width, config.vocab_size)
    model = Model(PRECISIONS[precision], 0, *sizes, 1e-5, 1, None, norm, matrix, matrix, None, None)
    num_bytes: int = load_library().engine_block_bytes(model)
    return num_bytes


@pytest.mark.parametrize("precision", Precision)
def test_block_bytes_of_every_head_size_are_the_librarys(precision: Precision) -> None:
    for head_size in range(1, 513):
        config = ModelConfig(vocab_size=7, num_positions=64, num_layers=1, num_heads=1, width=head_size, inner_width=5)
        assert kv_block_bytes(config, precision) == native_block_bytes(config, precision), head_size


@settings(max_examples=100, deadline=None)
@given(LAYOUTS, st.sampled_from(Precision))
def test_block_bytes_are_the_librarys(config: ModelConfig, precision: Precision) -> None:
    assert kv_block_bytes(config, precision) == native_block_bytes(config, precision)


@pytest.mark.parametrize(
    ("head_size", "precision", "expected"),
    [
        (64, Precision.INT8, 32 * (64 + 64) + 4 * 32 * 2),
        (64, Precision.BF16, 32 * (64 + 64) + 4 * 32 * 2),
        (64, Precision.F32, 32 * (64 + 64) * 4),
        (17, Precision.INT8, 32 * (20 + 32) + 4 * 32 * 2),
        (17, Precision.F32, 32 * (17 + 32) * 4),
    ],
)
def test_a_block_has_keys_values_scales_and_offsets(head_size: int, precision: Precision, expected: int) -> None:
    config = ModelConfig(vocab_size=7, num_positions=64, num_layers=3, num_heads=2, width=2 * head_size, inner_width=5)
    assert kv_block_bytes(config, precision) == 3 * 2 * expected


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 100), st.integers(1, 140), st.sampled_from(Precision), st.integers(0, 2**32 - 1))
def test_panels_hold_each_weight_and_zeros(num_channels: int, depth: int, precision: Precision, seed: int) -> None:
    """Weight (n, k) is where `native/model.h` says, and nothing else is there."""
    random = np.random.default_rng(seed)
    channel, k = np.indices((num_channels, depth))
    if precision is Precision.INT8:
        weight: Any = random.integers(-127, 128, (num_channels, depth), np.int8)
        panels = pack_panels(weight, precision)
        values: Any = (panels.view(np.uint8).astype(int) - 128).reshape(panels.shape)
        packed = values[channel // PANEL, k // QUAD, channel % PANEL, k % QUAD]
        expected = weight
    else:
        weight = random.standard_normal((num_channels, depth)).astype(np.float32)
        panels = values = pack_panels(weight, precision)
        packed = values[channel // PANEL, k, channel % PANEL]
        expected = to_bf16(weight) if precision is Precision.BF16 else weight

    assert panels.shape == panels_shape(num_channels, depth, precision)
    assert panels.flags.c_contiguous
    np.testing.assert_array_equal(packed, expected)
    assert np.count_nonzero(values) == np.count_nonzero(expected)


def test_the_best_target_is_the_first() -> None:
    assert choose_target("") == find_targets()[0]
    assert all(choose_target(name) == name for name in find_targets())
    with pytest.raises(UnsupportedProcessorError, match="'quantum': this processor runs"):
        choose_target("quantum")


def test_many_threads_read_the_targets_at_once() -> None:
    with ThreadPoolExecutor(8) as pool:
        assert {found.result() for found in [pool.submit(find_targets) for _ in range(500)]} == {find_targets()}


class Refusing:
    """The library, unable to open an engine."""

    def __init__(self, code: int) -> None:
        self._code = code

    def __getattr__(self, name: str) -> Any:
        return getattr(load_library(), name)

    def engine_open(self, *_: object) -> None:
        ctypes.set_errno(self._code)


@pytest.mark.parametrize(
    ("code", "message"), [(errno.EAGAIN, "the system refuses .* threads"), (errno.ENOMEM, "not enough memory")]
)
def test_an_engine_that_does_not_open(
    code: int, message: str, make_model: Any, drive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_engine, "load_library", lambda: Refusing(code))
    with pytest.raises(ModelError, match=message):
        drive(make_model().path)


def test_freed_memory_goes_back_to_the_system() -> None:
    """Small pieces below a live one: without the release, the heap keeps their pages."""
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        process_memory.release_free_memory()
        pytest.skip("this C library has no malloc_trim")
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    pieces = [libc.malloc(60_000) for _ in range(1000)]
    for piece in pieces:
        ctypes.memset(piece, 1, 60_000)
    last = libc.malloc(60_000)
    for piece in pieces:
        libc.free(piece)
    before = resident_bytes()

    process_memory.release_free_memory()

    assert before - resident_bytes() > 40_000_000
    libc.free(last)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * mmap.PAGESIZE
