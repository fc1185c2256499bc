"""Weights as the graph wants them: matrices as (out, in), in the precision asked for. The input of `build_graph`.

Names are the checkpoint's. A matrix in int8 has a companion: `X.weight` (out, in) int8 and `X.scale` (out, 1)
float32, `weight * scale` being the values; bf16 is kept as its bits, in uint16.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.config import ModelConfig, Precision
from distilgpt2_api.model.weights import Checkpoint, expected_shapes

PreparedWeights = Mapping[str, NDArray[Any]]
CONV1D_SUFFIXES = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")
"""Stored as (in, out) in checkpoints."""


def prepare_weights(config: ModelConfig, checkpoint: Checkpoint, precision: Precision) -> dict[str, NDArray[Any]]:
    """Reads, checks, transposes and rounds every tensor. Raises ModelFormatError for NaN and infinity."""
    checkpoint.check_tied_head()
    prepared: dict[str, NDArray[Any]] = {}
    for name, shape in expected_shapes(config).items():
        values = checkpoint.tensor(name)
        if len(shape) == 1 or name == "wpe.weight":
            # Biases, norms and positions: too few to weigh anything, added in float32.
            prepared[name] = np.ascontiguousarray(values)
        else:
            prepared |= _matrix(name, values.T if name.endswith(CONV1D_SUFFIXES) else values, precision)
    return prepared


def scale_name(weight_name: str) -> str:
    return weight_name.removesuffix("weight") + "scale"


def _matrix(name: str, values: NDArray[np.float32], precision: Precision) -> dict[str, NDArray[Any]]:
    if precision is Precision.INT8:
        weight, scale = quantize_rows(values)
        return {name: weight, scale_name(name): scale}
    if precision is Precision.BF16:
        return {name: round_to_bf16(values)}
    return {name: np.ascontiguousarray(values)}


def quantize_rows(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8, one scale a row: `values` (out, in) is nearly `weight` (out, in) * `scale` (out, 1)."""
    largest = np.maximum(values.max(axis=1, keepdims=True), -values.min(axis=1, keepdims=True))  # (out, 1)
    # A row of zeros has any scale. So has one of denormals: its values are zero for every practical purpose.
    scale = np.where(largest > 1e-30, largest / np.float32(127), np.float32(1)).astype(np.float32)
    weight = np.rint(values / scale).astype(np.int8)
    return np.ascontiguousarray(weight), scale


def round_to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of the nearest bfloat16, ties to even; `values` are finite."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return rounded.astype(np.uint16)
