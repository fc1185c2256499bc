"""Weights as the kernels read them: matrices in panels (`panels.py`), all else float32 as it is in the checkpoint.

Names are the checkpoint's. A matrix in int8 has a companion: `X.scale` (out,) float32, by which its bytes are
multiplied.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.config import ModelConfig, Precision
from distilgpt2_api.model.architectures.registry import tensor_specs
from distilgpt2_api.model.weights.checkpoint import Checkpoint
from distilgpt2_api.model.weights.panels import pack_panels, panels_shape
from distilgpt2_api.model.weights.safetensors_file import SafetensorsFile

MATRIX_DTYPES = {Precision.INT8: "I8", Precision.BF16: "BF16", Precision.F32: "F32"}
ROWS_AT_ONCE = 512
"""Rows quantised together: bounds the memory of intermediate arrays."""


@dataclass(frozen=True, slots=True)
class PreparedWeights:
    """Name → array, and the mapped file if the arrays are views of one."""

    tensors: Mapping[str, NDArray[Any]]
    file: SafetensorsFile | None = None


def prepare_weights(config: ModelConfig, checkpoint: Checkpoint, precision: Precision) -> PreparedWeights:
    """Reads, checks, transposes and rounds every tensor. Raises ModelFormatError for NaN and infinity."""
    checkpoint.check_tied_head()
    prepared: dict[str, NDArray[Any]] = {}
    for name, spec in tensor_specs(config).items():
        values = checkpoint.tensor(name)
        if not spec.is_matrix:
            prepared[name] = np.ascontiguousarray(values)
        else:
            prepared |= _matrix(name, values.T if spec.is_transposed else values, precision)
    return PreparedWeights(prepared)


def expected_spans(config: ModelConfig, precision: Precision) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The arrays that `prepare_weights` returns for a config: name → safetensors type and shape."""
    spans: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, spec in tensor_specs(config).items():
        if not spec.is_matrix:
            spans[name] = ("F32", spec.shape)
            continue
        num_out, num_in = spec.kernel_shape
        spans[name] = (MATRIX_DTYPES[precision], panels_shape(num_out, num_in, precision))
        if precision is Precision.INT8:
            spans[scale_name(name)] = ("F32", (num_out,))
    return spans


def scale_name(weight_name: str) -> str:
    return weight_name.removesuffix("weight") + "scale"


def _matrix(name: str, values: NDArray[np.float32], precision: Precision) -> dict[str, NDArray[Any]]:
    if precision is Precision.INT8:
        weight, scale = quantize_rows(values)
        return {name: pack_panels(weight, precision), scale_name(name): scale}
    return {name: pack_panels(values, precision)}


def quantize_rows(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8, one scale a row: `values` (out, in) is nearly `weight` (out, in) * `scale` (out,)."""
    weight, scale = np.empty(values.shape, np.int8), np.empty(len(values), np.float32)
    for begin in range(0, len(values), ROWS_AT_ONCE):
        rows = values[begin : begin + ROWS_AT_ONCE]
        largest = np.maximum(rows.max(axis=1, keepdims=True), -rows.min(axis=1, keepdims=True))  # (rows, 1)
        # A row of zeros may have any scale, and so may one of denormals, which are practically zero.
        part = np.where(largest > 1e-30, largest / np.float32(127), np.float32(1)).astype(np.float32)
        scale[begin : begin + ROWS_AT_ONCE] = part[:, 0]
        weight[begin : begin + ROWS_AT_ONCE] = np.rint(rows / part)
    return weight, scale
