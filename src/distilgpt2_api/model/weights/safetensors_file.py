"""Reads one safetensors file: 8 bytes of header length, a JSON header, then the tensors' bytes.

Format: https://github.com/huggingface/safetensors#format. The header is untrusted, so every number in it is checked
against the file before it is used; nothing is executed.
"""

import json
import math
import mmap
import os
import weakref
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.core.model_files import open_model_file, parse_json_object, safe_name, safe_repr

MAX_HEADER_BYTES = 8_000_000
"""The format allows 100 000 000; a GPT-2 with a thousand layers needs 2 000 000."""
MAX_RANK = 8
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
"""Bytes of an element, by the format's dtype names."""
NUMPY_DTYPES = {"I8": "<i1", "F16": "<f2", "BF16": "<u2", "F32": "<f4"}
"""NumPy's types of tensors; bf16 as its bits, because NumPy has no such type."""
READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpan:
    """A tensor's position: bytes `[begin, end)` of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsFile:
    """One open file. Its header is read and checked at once, a tensor's values on demand.

    `parts` and `read` copy values into their own memory, so later changes of the file don't matter. `view` maps the
    file, for files that are never rewritten: a rewrite would change values, or kill the process by SIGBUS.
    """

    def __init__(self, path: Path) -> None:
        """Raises ModelFormatError, naming the file, if it violates the format."""
        self.path = path
        self.descriptor = open_model_file(path)
        weakref.finalize(self, os.close, self.descriptor)
        self._state = self._read_state()
        self.num_bytes = os.fstat(self.descriptor).st_size
        header_bytes = self._read_header()
        self._data_begin = 8 + len(header_bytes)
        self.spans, self.metadata = _parse_header(path, header_bytes, num_bytes=self.num_bytes)

    def parts(self, name: str) -> Iterator[tuple[int, NDArray[Any]]]:
        """The tensor in its stored type (bf16 as uint16), flat, in pieces: each with its start index.

        A piece is valid until the next one. Raises ModelFormatError if the file has become shorter.
        """
        span = self.spans[name]
        dtype = self._dtype(name)
        num_items = min(READ_BYTES // dtype.itemsize, math.prod(span.shape))
        buffer = np.empty(num_items, dtype)
        for begin in range(span.begin, span.end, READ_BYTES):
            piece = buffer[: (min(begin + READ_BYTES, span.end) - begin) // dtype.itemsize]
            if os.preadv(self.descriptor, [piece.view(np.uint8).data], begin) != piece.nbytes:
                raise ModelFormatError(f"{self.path}: the file became shorter while it was read")
            yield (begin - span.begin) // dtype.itemsize, piece

    def read(self, name: str) -> NDArray[Any]:
        """The tensor in its stored type, in its own memory."""
        values = np.empty(self.spans[name].shape, self._dtype(name))
        flat = values.reshape(-1)
        for begin, part in self.parts(name):
            flat[begin : begin + len(part)] = part
        return values

    def view(self, name: str) -> NDArray[Any]:
        """The tensor in its stored type, without a copy. Views keep the map alive; it is unmapped with the last one.

        The map is private: processes share its pages as long as nothing writes, and nothing does.
        """
        span, dtype = self.spans[name], self._dtype(name)
        flat = np.frombuffer(self._map, dtype, count=math.prod(span.shape), offset=span.begin)
        return flat.reshape(span.shape)

    def is_intact(self) -> bool:
        """Whether the data match the CRC-32 in the metadata. It detects accidents, not attackers, who could write the
        checksum too. Read, not mapped: mapped pages would count as this process's memory.
        """
        checksum = 0
        buffer = memoryview(bytearray(READ_BYTES))
        position = self._data_begin
        while num_bytes := os.preadv(self.descriptor, [buffer], position):
            checksum = zlib.crc32(buffer[:num_bytes], checksum)
            position += num_bytes
        return self.metadata.get("crc32") == str(checksum)

    def check_unchanged(self) -> None:
        """Raises ModelFormatError if the file was written to since it was opened: values may be old or new. (A file
        that another one has replaced is unchanged.)
        """
        if self._read_state() != self._state:
            raise ModelFormatError(f"{self.path}: the file changed while it was read; start again")

    def _read_state(self) -> tuple[int, int]:
        status = os.fstat(self.descriptor)
        return status.st_size, status.st_mtime_ns

    @cached_property
    def _map(self) -> mmap.mmap:
        try:
            return mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:  # ValueError: the file has become empty
            raise ModelFormatError(f"{self.path}: can't be mapped: {error}") from error

    def _dtype(self, name: str) -> np.dtype[Any]:
        stored = self.spans[name].dtype
        if stored not in NUMPY_DTYPES:
            raise ModelFormatError(
                f"{self.path}: tensor {safe_name(name)} has type {stored}; supported are {', '.join(NUMPY_DTYPES)}"
            )
        return np.dtype(NUMPY_DTYPES[stored])

    def _read_header(self) -> bytes:
        if self.num_bytes < 8:
            raise ModelFormatError(f"{self.path}: the file has {self.num_bytes} bytes, too few for safetensors")
        num_header_bytes = int.from_bytes(os.pread(self.descriptor, 8, 0), "little")
        if num_header_bytes > MAX_HEADER_BYTES:
            raise ModelFormatError(
                f"{self.path}: the header has {num_header_bytes} bytes; at most {MAX_HEADER_BYTES} are supported"
            )
        if num_header_bytes > self.num_bytes - 8:
            raise ModelFormatError(f"{self.path}: the file is truncated: its header has {num_header_bytes} bytes")
        return os.pread(self.descriptor, num_header_bytes, 8)


def _parse_header(path: Path, header_bytes: bytes, *, num_bytes: int) -> tuple[dict[str, TensorSpan], dict[str, str]]:
    header = parse_json_object(path, header_bytes, "the header is ")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ModelFormatError(f"{path}: __metadata__ must be an object of strings")
    base = 8 + len(header_bytes)
    spans = {name: _parse_span(path, name, entry, base=base) for name, entry in header.items()}
    end = base
    for name, span in sorted(spans.items(), key=lambda item: (item[1].begin, item[1].end)):
        if span.begin != end:
            what = "overlaps another" if span.begin < end else "follows a hole"
            raise ModelFormatError(f"{path}: tensor {safe_name(name)} {what}")
        end = span.end
    if end != num_bytes:
        what = "truncated" if end > num_bytes else "has bytes that belong to no tensor"
        raise ModelFormatError(f"{path}: {what}: the tensors end at byte {end}, the file at {num_bytes}")
    return spans, metadata


def _parse_span(path: Path, name: str, entry: Any, *, base: int) -> TensorSpan:
    """Offsets in the header are relative to `base`, the first byte after it."""
    where = f"{path}: tensor {safe_name(name)}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ModelFormatError(f"{where}: the header entry must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise ModelFormatError(f"{where}: unknown dtype {safe_repr(dtype)}")
    if not _is_counts(shape) or len(shape) > MAX_RANK:
        raise ModelFormatError(f"{where}: bad shape")
    if not _is_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ModelFormatError(f"{where}: bad data_offsets")
    begin, end = offsets
    # Python's integers don't overflow, so a shape of [2**40, 2**40] fails this check.
    if math.prod(shape) * ITEM_BYTES[dtype] != end - begin:
        raise ModelFormatError(f"{where}: {end - begin} bytes don't hold {dtype} of shape {safe_repr(shape)}")
    return TensorSpan(dtype=dtype, shape=tuple(shape), begin=base + begin, end=base + end)


def _is_counts(value: Any) -> bool:
    """A list of non-negative integers of at most 63 bits, without booleans."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def write_safetensors(file: IO[bytes], tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Writes int8, float32 and bf16 (uint16) arrays. The data begin on a multiple of 64 bytes; the arrays whose size is
    one come first, so that each of those begins on a cache line, then the widest types, so that every other is aligned
    to its elements. The metadata get the data's CRC-32 as `crc32`.
    """
    names = {np.dtype(numpy_dtype): dtype for dtype, numpy_dtype in NUMPY_DTYPES.items()}
    ordered = sorted(tensors.items(), key=lambda item: (item[1].nbytes % 64 != 0, -item[1].itemsize))
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
