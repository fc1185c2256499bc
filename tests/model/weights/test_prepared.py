"""Weights in the kernels' own form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distilgpt2_api.core.config import Precision
from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.weights.checkpoint import open_checkpoint
from distilgpt2_api.model.weights.panels import ALIGNMENT, pack_panels, panels_shape, zeros_on_cache_line
from distilgpt2_api.model.weights.prepared import expected_spans, prepare_weights, quantize_rows


def prepare(model: Any, precision: Precision) -> dict[str, Any]:
    config = read_model_config(model.path)
    return {**prepare_weights(config, open_checkpoint(model.path, config), precision).tensors}


def unpack(panels: Any, num_out: int, num_in: int) -> Any:
    """(out, in) of a matrix in panels, as numbers."""
    if panels.ndim == 4:
        values = (panels.view(np.uint8).astype(np.int16) - 128).transpose(0, 2, 1, 3)
    else:
        values = panels.transpose(0, 2, 1)
        if panels.dtype == np.uint16:
            values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.reshape(len(panels) * 32, -1)[:num_out, :num_in]


@pytest.mark.parametrize("precision", [Precision.F32, Precision.BF16])
def test_matrices_are_transposed_and_other_tensors_are_unchanged(make_model: Any, precision: Precision) -> None:
    model = make_model()

    prepared = prepare(model, precision)

    assert prepared.keys() == model.tensors.keys()
    for name, tensor in model.tensors.items():
        expected = tensor.T if ".c_" in name and tensor.ndim == 2 else tensor
        if tensor.ndim == 1 or name == "wpe.weight":
            np.testing.assert_array_equal(prepared[name], expected)
        else:
            error = 0 if precision is Precision.F32 else 2**-8
            np.testing.assert_allclose(unpack(prepared[name], *expected.shape), expected, rtol=error)
        assert prepared[name].flags.c_contiguous


def test_bf16_is_rounded_to_the_nearest_even(make_model: Any) -> None:
    model = make_model()
    model.tensors["wte.weight"][0, :4] = [1.0, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8 - 2**-12]
    model.save()

    row = unpack(prepare(model, Precision.BF16)["wte.weight"], 1, 4)[0]

    assert row.tolist() == [1.0, 1.0, 1 + 2**-6, -1 - 2**-7]


def test_int8_has_a_scale_for_each_output(make_model: Any) -> None:
    """No value is off by more than half a step."""
    model = make_model()

    prepared = prepare(model, Precision.INT8)

    scale = prepared["h.0.attn.c_attn.scale"]
    expected = model.tensors["h.0.attn.c_attn.weight"].T
    restored = unpack(prepared["h.0.attn.c_attn.weight"], *expected.shape) * scale[:, None]
    assert scale.shape == (96,)
    assert prepared["h.0.attn.c_attn.weight"].dtype == np.int8
    assert (np.abs(restored - expected) <= scale[:, None] * 0.5001).all()
    assert prepared["wpe.weight"].dtype == np.float32


@pytest.mark.parametrize(("num_out", "num_in"), [(1, 1), (32, 4), (33, 5), (70, 129)])
def test_the_padding_of_panels_is_zero(num_out: int, num_in: int) -> None:
    weight = np.arange(num_out * num_in, dtype=np.int64).reshape(num_out, num_in) % 255 - 127

    panels = pack_panels(weight.astype(np.int8), Precision.INT8)

    assert panels.shape == panels_shape(num_out, num_in, Precision.INT8)
    np.testing.assert_array_equal(unpack(panels, num_out, num_in), weight)
    assert np.abs(unpack(panels, 10**6, 10**6).astype(int)).sum() == np.abs(weight).sum()


@pytest.mark.parametrize("num_items", [1, 127, 4096, 100_000])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_memory_begins_on_a_cache_line(num_items: int, dtype: Any) -> None:
    memory = zeros_on_cache_line((num_items, 3), dtype)
    assert memory.shape == (num_items, 3)
    assert memory.dtype == dtype
    assert memory.ctypes.data % ALIGNMENT == 0
    assert not memory.any()


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize(("num_out", "num_in"), [(1, 1), (33, 6), (2304, 768)])
def test_panels_begin_on_a_cache_line(num_out: int, num_in: int, precision: Precision) -> None:
    weight = np.ones((num_out, num_in), np.int8 if precision is Precision.INT8 else np.float32)
    assert pack_panels(weight, precision).ctypes.data % ALIGNMENT == 0


@pytest.mark.parametrize("precision", Precision)
def test_expected_spans_match_the_prepared_weights(make_model: Any, precision: Precision) -> None:
    model = make_model(n_inner=50, tie_word_embeddings=False)
    expected = expected_spans(read_model_config(model.path), precision)

    prepared = prepare(model, precision)

    dtypes = {np.dtype(np.int8): "I8", np.dtype(np.uint16): "BF16", np.dtype(np.float32): "F32"}
    assert {name: (dtypes[tensor.dtype], tensor.shape) for name, tensor in prepared.items()} == expected


def test_quantised_rows_use_the_whole_range() -> None:
    """The largest magnitude of a row is ±127; rows of zeros and of denormals are zeros, not NaN."""
    values = np.array([[1, -2, 0.5], [0, 0, 0], [1e-40, 0, 0], [3e38, -3e38, 0]], np.float32)

    weight, scale = quantize_rows(values)

    assert weight.tolist() == [[64, -127, 32], [0, 0, 0], [0, 0, 0], [127, -127, 0]]
    assert np.isfinite(scale).all()
    assert (scale > 0).all()


def test_an_invalid_value_is_an_error(make_model: Any) -> None:
    model = make_model()
    model.tensors["wpe.weight"][100, 0] = np.inf
    model.save()

    with pytest.raises(ModelFormatError, match=r"wpe\.weight"):
        prepare(model, Precision.INT8)
