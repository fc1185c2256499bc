"""An open file of tensors: what each one is and where its values are, and the values on demand."""

import math
import os
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.core.model_files import open_model_file, safe_name

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


class TensorFile:
    """One open file. `parts` and `read` copy values into their own memory, so later changes of the file don't matter.

    A format's class sets `spans` and `metadata`.
    """

    spans: Mapping[str, TensorSpan]
    metadata: Mapping[str, str]

    def __init__(self, path: Path) -> None:
        """Raises ModelFormatError, naming the file, if it can't be read."""
        self.path = path
        self.descriptor = open_model_file(path)
        weakref.finalize(self, os.close, self.descriptor)
        self._state = self._read_state()
        self.num_bytes = os.fstat(self.descriptor).st_size

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
            self._read_into(piece, begin)
            yield (begin - span.begin) // dtype.itemsize, piece

    def read(self, name: str) -> NDArray[Any]:
        """The tensor in its stored type, in its own memory."""
        values = np.empty(self.spans[name].shape, self._dtype(name))
        flat = values.reshape(-1)
        for begin, part in self.parts(name):
            flat[begin : begin + len(part)] = part
        return values

    def check_unchanged(self) -> None:
        """Raises ModelFormatError if the file was written to since it was opened: values may be old or new. (A file
        that another one has replaced is unchanged.)
        """
        if self._read_state() != self._state:
            raise ModelFormatError(f"{self.path}: the file changed while it was read; start again")

    def _read_into(self, items: NDArray[Any], begin: int) -> None:
        if os.preadv(self.descriptor, [items.view(np.uint8).data], begin) != items.nbytes:
            raise ModelFormatError(f"{self.path}: the file became shorter while it was read")

    def _read_state(self) -> tuple[int, int]:
        status = os.fstat(self.descriptor)
        return status.st_size, status.st_mtime_ns

    def _dtype(self, name: str) -> np.dtype[Any]:
        stored = self.spans[name].dtype
        if stored not in NUMPY_DTYPES:
            raise ModelFormatError(
                f"{self.path}: tensor {safe_name(name)} has type {stored}; supported are {', '.join(NUMPY_DTYPES)}"
            )
        return np.dtype(NUMPY_DTYPES[stored])
