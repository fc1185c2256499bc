"""Weights in the graph's form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distilgpt2_api.core.config import Precision
from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.weights.checkpoint import open_checkpoint
from distilgpt2_api.model.weights.prepared import expected_spans, prepare_weights, quantize_rows


def prepare(model: Any, precision: Precision) -> dict[str, Any]:
    config = read_model_config(model.path)
    return {**prepare_weights(config, open_checkpoint(model.path, config), precision).tensors}


@pytest.mark.parametrize("precision", [Precision.F32, Precision.BF16])
def test_matrices_are_transposed_and_other_tensors_are_unchanged(make_model: Any, precision: Precision) -> None:
    model = make_model()

    prepared = prepare(model, precision)

    assert prepared.keys() == model.tensors.keys()
    for name, tensor in model.tensors.items():
        is_conv1d = ".c_" in name and tensor.ndim == 2
        np.testing.assert_array_equal(prepared[name], tensor.T if is_conv1d else tensor)
        assert prepared[name].flags.c_contiguous


def test_int8_has_a_scale_for_each_output(make_model: Any) -> None:
    """No value is off by more than half a step."""
    model = make_model()

    prepared = prepare(model, Precision.INT8)

    scale = prepared["h.0.attn.c_attn.scale"]
    restored = prepared["h.0.attn.c_attn.weight"] * scale
    assert scale.shape == (96, 1)
    assert prepared["h.0.attn.c_attn.weight"].dtype == np.int8
    assert (np.abs(restored - model.tensors["h.0.attn.c_attn.weight"].T) <= scale * 0.5001).all()
    assert prepared["wpe.weight"].dtype == np.float32


@pytest.mark.parametrize("precision", Precision)
def test_expected_spans_match_the_prepared_weights(make_model: Any, precision: Precision) -> None:
    model = make_model(n_inner=50, tie_word_embeddings=False)
    expected = expected_spans(read_model_config(model.path), precision)

    prepared = prepare(model, precision)

    dtypes = {np.dtype(np.int8): "I8", np.dtype(np.float32): "F32"}
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
