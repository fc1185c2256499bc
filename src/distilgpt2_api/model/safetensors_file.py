"""Reads one safetensors file: 8 bytes of header length, a JSON header, then the tensors' bytes.

Format: https://github.com/huggingface/safetensors#format. The header comes from a stranger, so every number in it is
checked against the file before a byte is believed; nothing is copied and nothing is executed.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import weakref
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.errors import ModelFormatError

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""
MAX_RANK = 8
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
"""Bytes of an element, by the format's dtype names."""
NUMPY_DTYPES = {"I8": "<i1", "F16": "<f2", "BF16": "<u2", "F32": "<f4"}
"""What `view` gives; bf16 as its bits, for NumPy has no such type."""
READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpan:
    """Where a tensor lies: bytes `[begin, end)` of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsFile:
    """One file, memory-mapped. Views keep the map alive; dropping all of them unmaps it.

    The map is private, so that views are writable, as OpenVINO wants them; nothing writes, and the file never changes.
    """

    def __init__(self, path: Path) -> None:
        """Raises ModelFormatError, naming the file, for anything that the format doesn't allow."""
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
                self._descriptor = os.dup(file.fileno())
        except (OSError, ValueError) as error:  # ValueError: an empty file can't be mapped
            raise ModelFormatError(f"{path}: can't be read: {error}") from error
        weakref.finalize(self, os.close, self._descriptor)
        self.header_bytes = _header_bytes(path, self._map)
        self.spans, self.metadata = _parse_header(path, self.header_bytes, num_bytes=len(self._map))

    def view(self, name: str) -> NDArray[Any]:
        """The tensor in its stored type (bf16 as uint16), without a copy."""
        span = self.spans[name]
        if span.dtype not in NUMPY_DTYPES:
            raise ModelFormatError(f"{self.path}: tensor {name} is {span.dtype}; supported are F32, F16 and BF16")
        dtype = np.dtype(NUMPY_DTYPES[span.dtype])
        flat = np.frombuffer(self._map, dtype, count=math.prod(span.shape), offset=span.begin)
        return flat.reshape(span.shape)

    def read_rows(self, name: str, indices: Sequence[int]) -> NDArray[Any]:
        """`view(name)[indices]`, all of them within the tensor. Read, not mapped, as in `is_intact`; read-only."""
        span = self.spans[name]
        row_bytes = (span.end - span.begin) // span.shape[0]
        rows = [os.pread(self._descriptor, row_bytes, span.begin + row_bytes * index) for index in indices]
        return np.frombuffer(b"".join(rows), NUMPY_DTYPES[span.dtype]).reshape(len(rows), *span.shape[1:])

    def release_pages(self) -> None:
        """Takes the map's pages out of the resident memory; a view that is read again brings its own back."""
        self._map.madvise(mmap.MADV_DONTNEED)

    def is_intact(self) -> bool:
        """Whether the data have the CRC-32 that `write_safetensors` noted: against accidents, not against enemies, who
        could write the checksum too. Read, not mapped: mapped pages would count as this process's memory.
        """
        checksum = 0
        buffer = memoryview(bytearray(READ_BYTES))
        with self.path.open("rb", buffering=0) as file:
            file.seek(8 + len(self.header_bytes))
            while num_bytes := file.readinto(buffer):
                checksum = zlib.crc32(buffer[:num_bytes], checksum)
        return self.metadata.get("crc32") == str(checksum)


def _header_bytes(path: Path, data: mmap.mmap) -> bytes:
    if len(data) < 8:
        raise ModelFormatError(f"{path}: {len(data)} bytes are too few for a safetensors file")
    num_header_bytes = int.from_bytes(data[:8], "little")
    if num_header_bytes > MAX_HEADER_BYTES:
        raise ModelFormatError(f"{path}: header of {num_header_bytes} bytes; at most {MAX_HEADER_BYTES} are allowed")
    if num_header_bytes > len(data) - 8:
        raise ModelFormatError(f"{path}: truncated: the header's {num_header_bytes} bytes go beyond the file's end")
    return data[8 : 8 + num_header_bytes]


def _parse_header(path: Path, header_bytes: bytes, *, num_bytes: int) -> tuple[dict[str, TensorSpan], dict[str, str]]:
    try:
        header = json.loads(header_bytes, object_pairs_hook=_unique_pairs)
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"{path}: the header is not valid JSON: {error}") from error
    if not isinstance(header, dict):
        raise ModelFormatError(f"{path}: the header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ModelFormatError(f"{path}: __metadata__ is not a map of strings")
    base = 8 + len(header_bytes)
    spans = {name: _parse_span(path, name, entry, base=base) for name, entry in header.items()}
    end = base
    for name, span in sorted(spans.items(), key=lambda item: (item[1].begin, item[1].end)):
        if span.begin != end:
            raise ModelFormatError(
                f"{path}: tensor {name} {'overlaps another' if span.begin < end else 'follows a hole'}"
            )
        end = span.end
    if end != num_bytes:
        what = "truncated" if end > num_bytes else "has bytes that belong to no tensor"
        raise ModelFormatError(f"{path}: {what}: the tensors end at byte {end}, the file at {num_bytes}")
    return spans, metadata


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise ValueError("a key occurs twice")
    return unique


def _parse_span(path: Path, name: str, entry: Any, *, base: int) -> TensorSpan:
    """Offsets in the header count from `base`, the first byte after it."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ModelFormatError(f"{path}: tensor {name}: the header entry needs dtype, shape and data_offsets, no more")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise ModelFormatError(f"{path}: tensor {name}: unknown dtype {dtype!r}")
    if not _is_counts(shape) or len(shape) > MAX_RANK:
        raise ModelFormatError(f"{path}: tensor {name}: bad shape")
    if not _is_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ModelFormatError(f"{path}: tensor {name}: bad data_offsets")
    begin, end = offsets
    # Python's integers don't overflow: a shape of [2**40, 2**40] is simply not the number of bytes.
    if math.prod(shape) * ITEM_BYTES[dtype] != end - begin:
        raise ModelFormatError(f"{path}: tensor {name}: {end - begin} bytes don't hold {dtype} of shape {shape}")
    return TensorSpan(dtype=dtype, shape=tuple(shape), begin=base + begin, end=base + end)


def _is_counts(value: Any) -> bool:
    """A list of integers of at most 63 bits, none negative; booleans are no integers here."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def write_safetensors(file: IO[bytes], tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Writes int8, float32 and bf16 (uint16) arrays; the widest types first, and the data on a multiple of 64 bytes,
    so that every tensor is aligned to its elements. The metadata get the data's CRC-32 as `crc32`.
    """
    names = {np.dtype(numpy_dtype): dtype for dtype, numpy_dtype in NUMPY_DTYPES.items()}
    ordered = sorted(tensors.items(), key=lambda item: -item[1].itemsize)
    checksum = 0
    for _, tensor in ordered:
        checksum = zlib.crc32(np.ascontiguousarray(tensor).data, checksum)
    header: dict[str, Any] = {"__metadata__": {**metadata, "crc32": str(checksum)}}
    begin = 0
    for name, tensor in ordered:
        end = begin + tensor.nbytes
        header[name] = {"dtype": names[tensor.dtype], "shape": tensor.shape, "data_offsets": [begin, end]}
        begin = end
    header_bytes = json.dumps(header, separators=(",", ":")).encode()
    header_bytes += b" " * (-(8 + len(header_bytes)) % 64)
    file.write(len(header_bytes).to_bytes(8, "little"))
    file.write(header_bytes)
    for _, tensor in ordered:
        file.write(np.ascontiguousarray(tensor).data)
