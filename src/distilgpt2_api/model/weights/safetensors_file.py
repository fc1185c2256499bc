"""Reads one safetensors file: 8 bytes of header length, a JSON header, then the tensors' bytes.

Format: https://github.com/huggingface/safetensors#format. The header is untrusted, so every number in it is checked
against the file before it is used; nothing is executed.
"""

import contextlib
import json
import math
import mmap
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.core.model_files import parse_json_object, safe_name, safe_repr
from distilgpt2_api.model.weights.tensor_file import (
    ITEM_BYTES,
    MAX_RANK,
    NUMPY_DTYPES,
    READ_BYTES,
    TensorFile,
    TensorSpan,
)

PIECE_BYTES = 4 << 20
"""Written at once: the system keeps what is written in pages of up to this size, and large ones are read faster."""
MAX_HEADER_BYTES = 8_000_000
"""The format allows 100 000 000; a GPT-2 with a thousand layers needs 2 000 000."""


class SafetensorsFile(TensorFile):
    """One open file. Its header is read and checked at once, a tensor's values on demand.

    `view` maps the file, for files that are never rewritten: a rewrite would change values, or kill the process by
    SIGBUS.
    """

    def __init__(self, path: Path) -> None:
        """Raises ModelFormatError, naming the file, if it violates the format."""
        super().__init__(path)
        header_bytes = self._read_header()
        self._data_begin = 8 + len(header_bytes)
        self.spans, self.metadata = _parse_header(path, header_bytes, num_bytes=self.num_bytes)

    def view(self, name: str) -> NDArray[Any]:
        """The tensor in its stored type, without a copy. Views keep the map alive; it is unmapped with the last one.

        The map is private: processes share its pages as long as nothing writes, and nothing does.
        """
        span, dtype = self.spans[name], self._dtype(name)
        flat = np.frombuffer(self._map, dtype, count=math.prod(span.shape), offset=span.begin)
        return flat.reshape(span.shape)

    def is_intact(self, *, is_mapped: bool) -> bool:
        """Whether the data match the CRC-32 in the metadata. It detects accidents, not attackers, who could write the
        checksum too. `is_mapped`: reads them through the map that `view` uses.
        """
        checksum = 0
        for piece in [memoryview(self._map)[self._data_begin :]] if is_mapped else self._read_data():
            checksum = zlib.crc32(piece, checksum)
        return self.metadata.get("crc32") == str(checksum)

    def _read_data(self) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(READ_BYTES))
        position = self._data_begin
        while num_bytes := os.preadv(self.descriptor, [buffer], position):
            yield buffer[:num_bytes]
            position += num_bytes

    @cached_property
    def _map(self) -> mmap.mmap:
        try:
            mapped = mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:  # ValueError: the file has become empty
            raise ModelFormatError(f"{self.path}: can't be mapped: {error}") from error
        if hasattr(mmap, "MADV_HUGEPAGE"):  # Linux
            # A decode step reads all weights. With 2 MB pages it takes up to a tenth less time, if the file system can.
            with contextlib.suppress(OSError):  # a system without them
                mapped.madvise(mmap.MADV_HUGEPAGE)
        return mapped

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
    layout = {name: (names[tensor.dtype], tensor.shape) for name, tensor in ordered}
    header = pack_header(layout, {**metadata, "crc32": str(checksum)})
    data = (np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data for _, tensor in ordered)
    for piece in _in_pieces(chain([memoryview(header)], data)):
        file.write(piece)


def _in_pieces(parts: Iterable[memoryview]) -> Iterator[bytearray]:
    """All bytes of the parts, in pieces of PIECE_BYTES and a last one."""
    piece = bytearray()
    for part in parts:
        rest = part
        while rest:
            num_bytes = PIECE_BYTES - len(piece)
            piece += rest[:num_bytes]
            rest = rest[num_bytes:]
            if len(piece) == PIECE_BYTES:
                yield piece
                piece = bytearray()
    if piece:
        yield piece


def pack_header(layout: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """The beginning of a file, before the data. `layout`: name → the format's dtype and the shape, in the order of the
    data, which begin on a multiple of 64 bytes.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    begin = 0
    for name, (dtype, shape) in layout.items():
        end = begin + math.prod(shape) * ITEM_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        begin = end
    header_bytes = json.dumps(header, separators=(",", ":")).encode()
    header_bytes += b" " * (-(8 + len(header_bytes)) % 64)
    return len(header_bytes).to_bytes(8, "little") + header_bytes
