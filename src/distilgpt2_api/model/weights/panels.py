"""Weights in the kernels' layout: panels of 32 output channels, so that a step reads them in the order of memory.

(N, K) becomes int8 (N / 32, K / 4, 32, 4), or float32 and bf16 (N / 32, K, 32), with zeros where N or K end earlier.
Bytes are the weight plus 128: x86-64 multiplies unsigned by signed bytes. They are stored as int8 all the same, the
type that a safetensors file has for them. The layout is the same on every processor. Arrays begin on a cache line, as
in a compiled file: steps on AMX take 6 to 22 % longer if each row of a tile is in two lines.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from distilgpt2_api.core.config import Precision

PANEL = 32
QUAD = 4
"""Neighbouring weights of a channel that one instruction multiplies."""
ALIGNMENT = 128
"""Bytes; a multiple of every processor's cache line."""


def panels_shape(num_channels: int, depth: int, precision: Precision) -> tuple[int, ...]:
    """The shape of the array that `pack_panels` makes of (num_channels, depth)."""
    num_panels = -(-num_channels // PANEL)
    if precision is Precision.INT8:
        return num_panels, -(-depth // QUAD), PANEL, QUAD
    return num_panels, depth, PANEL


def pack_panels(weight: NDArray[Any], precision: Precision) -> NDArray[Any]:
    """`weight` (N, K) is int8, or float32 for the other precisions. Returns int8, uint16 (bf16's bits) or float32."""
    num_channels, depth = weight.shape
    shape = panels_shape(num_channels, depth, precision)
    if precision is Precision.INT8:
        whole = np.zeros((shape[0] * PANEL, shape[1] * QUAD), np.int8)
        whole[:num_channels, :depth] = weight
        quads = whole.reshape(shape[0], PANEL, shape[1], QUAD).transpose(0, 2, 1, 3)
        packed = zeros_on_cache_line(quads.shape, np.uint8)
        np.bitwise_xor(quads.view(np.uint8), np.uint8(128), out=packed)
        return packed.view(np.int8)
    wide = np.zeros((shape[0] * PANEL, depth), np.float32)
    wide[:num_channels] = weight
    rounded: NDArray[Any] = to_bf16(wide) if precision is Precision.BF16 else wide
    packed = zeros_on_cache_line(shape, rounded.dtype)
    packed[...] = rounded.reshape(shape[0], PANEL, depth).transpose(0, 2, 1)
    return packed


def zeros_on_cache_line(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """The memory is the system's zero pages until it is first written."""
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    whole = np.zeros(num_bytes + ALIGNMENT, np.uint8)
    begin = -whole.ctypes.data % ALIGNMENT
    return whole[begin : begin + num_bytes].view(dtype).reshape(shape)


def to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper 16 bits, rounded to the nearest, ties to even. `values` are finite and C-contiguous."""
    bits = values.view(np.uint32)
    rounded: NDArray[np.uint32] = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    return (rounded >> np.uint32(16)).astype(np.uint16)
