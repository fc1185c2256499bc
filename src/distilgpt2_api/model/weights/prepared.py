"""Prepares weights for the graph: matrices as (out, in), int8 or float32. The input of `build_graph`.

Names are the checkpoint's. An int8 matrix has two arrays, `X.weight` (out, in) int8 and `X.scale` (out, 1) float32; its
values are `weight * scale`.

The bf16 precision has float32 weights, like f32: the plugin converts 16-bit constants to float32 in its own memory
before it packs them for the kernels, and keeps them (measured: 320 MB more for DistilGPT-2), while float32 stays in the
mapped file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.config import ModelConfig, Precision
from distilgpt2_api.model.architectures.registry import tensor_specs
from distilgpt2_api.model.weights.checkpoint import Checkpoint
from distilgpt2_api.model.weights.safetensors_file import SafetensorsFile

ROWS_AT_ONCE = 512
"""Rows quantised together: bounds the memory of intermediate arrays."""


@dataclass(frozen=True, slots=True)
class PreparedWeights:
    """Name → array, and the mapped file if the arrays are views of one."""

    tensors: Mapping[str, NDArray[Any]]
    file: SafetensorsFile | None = None

    def release_pages(self) -> None:
        """Returns the mapped file's pages to the system; later reads come from the page cache again."""
        if self.file is not None:
            self.file.release_pages()


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
        is_int8 = spec.is_matrix and precision is Precision.INT8
        spans[name] = ("I8" if is_int8 else "F32", spec.kernel_shape)
        if is_int8:
            spans[scale_name(name)] = ("F32", (spec.kernel_shape[0], 1))
    return spans


def scale_name(weight_name: str) -> str:
    return weight_name.removesuffix("weight") + "scale"


def _matrix(name: str, values: NDArray[np.float32], precision: Precision) -> dict[str, NDArray[Any]]:
    if precision is Precision.INT8:
        weight, scale = quantize_rows(values)
        return {name: weight, scale_name(name): scale}
    return {name: np.ascontiguousarray(values)}


def quantize_rows(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 with one scale per row: `values` (out, in) is nearly `weight` (out, in) * `scale` (out, 1)."""
    weight, scale = np.empty(values.shape, np.int8), np.empty((len(values), 1), np.float32)
    for begin in range(0, len(values), ROWS_AT_ONCE):
        rows = values[begin : begin + ROWS_AT_ONCE]
        largest = np.maximum(rows.max(axis=1, keepdims=True), -rows.min(axis=1, keepdims=True))  # (rows, 1)
        # A row of zeros may have any scale, and so may one of denormals, which are practically zero.
        part = np.where(largest > 1e-30, largest / np.float32(127), np.float32(1)).astype(np.float32)
        scale[begin : begin + ROWS_AT_ONCE] = part
        weight[begin : begin + ROWS_AT_ONCE] = np.rint(rows / part)
    return weight, scale
