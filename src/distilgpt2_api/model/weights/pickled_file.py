"""Reads one checkpoint of `torch.save`: a zip archive or, before PyTorch 1.6, pickles followed by the storages' bytes.

`pickle_reader.py` reads the pickles without running them. Zip: `NAME/data.pkl` and `NAME/data/KEY`, a storage each,
uncompressed. Legacy: the pickles of a magic number, a protocol version, the machine's types, the content and the
storages' keys; then, for each key, the number of items and the items.
"""

import io
import os
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from distilgpt2_api.core.errors import ModelFormatError, UnsupportedModelError
from distilgpt2_api.core.model_files import safe_name
from distilgpt2_api.model.weights.pickle_reader import read_pickle
from distilgpt2_api.model.weights.pickled_tensors import PickledTensor, Storage
from distilgpt2_api.model.weights.tensor_file import ITEM_BYTES, TensorFile, TensorSpan

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
MAX_PICKLE_BYTES = 2_000_000
"""The largest GPT-2, with the state of its optimizer, needs 300 000."""
MAX_DIRECTORY_BYTES = 16_000_000
"""The directory of a zip archive has about a hundred bytes for each storage."""
LOCAL_HEADER = struct.Struct("<4s22xHH")
"""The beginning of a file in a zip archive: the magic, and the lengths of its name and its extra field."""
STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model", "module")
"""The keys under which Lightning, scripts and DeepSpeed put the state dict beside the optimizer's state."""


class PickledFile(TensorFile):
    """One open file. Its pickle is read and checked at once, a tensor's values on demand."""

    metadata: Mapping[str, str] = {}

    def __init__(self, path: Path) -> None:
        """Raises ModelFormatError or UnsupportedModelError, naming the file."""
        super().__init__(path)
        is_zip = os.pread(self.descriptor, len(ZIP_MAGIC), 0) == ZIP_MAGIC
        content, begins = self._read_zip() if is_zip else self._read_legacy()
        self._tensors = find_state_dict(path, content)
        self.spans = {name: _span_of(tensor, begins[tensor.storage.key]) for name, tensor in self._tensors.items()}
        self._check_total()

    def parts(self, name: str) -> Iterator[tuple[int, NDArray[Any]]]:
        """As in `TensorFile`. A tensor that is not contiguous, such as a transposed one, comes in one piece."""
        tensor = self._tensors[name]
        if tensor.is_contiguous:
            yield from super().parts(name)
            return
        dtype, span = self._dtype(name), self.spans[name]
        items = np.empty(tensor.end - tensor.offset, dtype)
        self._read_into(items, span.begin)
        strides = [stride * dtype.itemsize for stride in tensor.strides]
        yield 0, np.ascontiguousarray(as_strided(items, tensor.shape, strides)).reshape(-1)

    def _read_zip(self) -> tuple[Any, dict[str, int]]:
        """The content, and where each storage begins in the file."""
        files = self._list_zip()
        pickles = [name for name in files if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise self._malformed("the archive has no data.pkl, or several")
        folder = pickles[0].removesuffix("data.pkl")
        if (order := files.get(f"{folder}byteorder")) is not None and self._read_bytes(*order, 16) != b"little":
            raise UnsupportedModelError(f"{self.path}: written on a machine with another byte order")
        pickle = self._read_bytes(*files[pickles[0]], MAX_PICKLE_BYTES)
        content, storages = read_pickle(self.path, io.BytesIO(pickle))
        begins = {}
        for key, storage in storages.items():
            begin, end = files.get(f"{folder}data/{key}", (0, -1))
            if end - begin != _num_bytes(storage):
                raise self._malformed(f"the storage {safe_name(key)} is missing, or its size differs")
            begins[key] = begin
        return content, begins

    def _list_zip(self) -> dict[str, tuple[int, int]]:
        """The first and the last position of each file's bytes, by name."""
        try:
            with zipfile.ZipFile(_BoundedReader(self.descriptor)) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, LookupError, OSError, struct.error):
            raise self._malformed("the zip archive is damaged") from None
        files = {}
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                raise self._malformed("the zip archive has a compressed or encrypted file")
            is_inside = 0 <= entry.header_offset <= self.num_bytes - LOCAL_HEADER.size
            header = os.pread(self.descriptor, LOCAL_HEADER.size, entry.header_offset) if is_inside else b""
            if len(header) < LOCAL_HEADER.size or header[:4] != ZIP_MAGIC:
                raise self._malformed("the zip archive is damaged")
            _, name_length, extra_length = LOCAL_HEADER.unpack(header)
            begin = entry.header_offset + LOCAL_HEADER.size + name_length + extra_length
            files[entry.filename] = (begin, self._check_end(begin + entry.file_size))
        return files

    def _read_legacy(self) -> tuple[Any, dict[str, int]]:
        """As `_read_zip`."""
        pickles = io.BytesIO(os.pread(self.descriptor, MAX_PICKLE_BYTES, 0))
        for expected in (LEGACY_MAGIC, LEGACY_VERSION):
            if read_pickle(self.path, pickles)[0] != expected:
                raise self._malformed("it begins with another pickle")
        machine, _ = read_pickle(self.path, pickles)
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise UnsupportedModelError(f"{self.path}: written on a machine with another byte order")
        content, storages = read_pickle(self.path, pickles)
        keys, _ = read_pickle(self.path, pickles)
        if not isinstance(keys, list) or len(keys) != len(storages) or {*map(str, keys)} != storages.keys():
            raise self._malformed("the list of storages differs from the tensors'")
        begins = {}
        position = pickles.tell()
        for key in keys:
            storage = storages[key]
            if os.pread(self.descriptor, 8, position) != storage.num_items.to_bytes(8, "little"):
                raise self._malformed(f"the storage {safe_name(key)} is missing, or its size differs")
            begins[key] = position + 8
            position = self._check_end(position + 8 + _num_bytes(storage))
        return content, begins

    def _check_total(self) -> None:
        """Tensors may share a storage, but all together can't be larger than the file: a small file could else become
        a large model.
        """
        views = {(span.begin, span.shape): span.end - span.begin for span in self.spans.values()}
        if sum(views.values()) > self.num_bytes:
            raise self._malformed("its tensors overlap")

    def _read_bytes(self, begin: int, end: int, max_bytes: int) -> bytes:
        if end - begin > max_bytes:
            raise self._malformed(f"a pickle has {end - begin} bytes; at most {max_bytes} are supported")
        return os.pread(self.descriptor, end - begin, begin)

    def _check_end(self, end: int) -> int:
        if end > self.num_bytes:
            raise self._malformed("the file is truncated")
        return end

    def _malformed(self, what: str) -> ModelFormatError:
        return ModelFormatError(f"{self.path}: not a checkpoint of PyTorch: {what}")


def find_state_dict(path: Path, content: object) -> dict[str, PickledTensor]:
    """The tensors of a state dict, alone or beside an optimizer's state. Its plain values are ignored."""
    if isinstance(content, dict):
        for values in (content, *(content.get(key) for key in STATE_DICT_KEYS)):
            if isinstance(values, dict):
                tensors = {str(name): value for name, value in values.items() if isinstance(value, PickledTensor)}
                if tensors:
                    return tensors
    raise ModelFormatError(
        f"{path}: no state dict: the file must have a dictionary of tensors, alone or as "
        f"{', '.join(STATE_DICT_KEYS)} of a dictionary"
    )


def _span_of(tensor: PickledTensor, storage_begin: int) -> TensorSpan:
    item_bytes = ITEM_BYTES[tensor.storage.dtype]
    begin = storage_begin + tensor.offset * item_bytes
    return TensorSpan(
        dtype=tensor.storage.dtype, shape=tensor.shape, begin=begin, end=begin + tensor.num_items * item_bytes
    )


def _num_bytes(storage: Storage) -> int:
    return storage.num_items * ITEM_BYTES[storage.dtype]


class _BoundedReader(io.RawIOBase):
    """A descriptor as a file object that reads no more at once than a directory of an archive may have. Mutable: has
    its own position.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        num_bytes = MAX_DIRECTORY_BYTES + 1 if size is None or size < 0 else size
        content = b"" if num_bytes > MAX_DIRECTORY_BYTES + 1 else os.pread(self._descriptor, num_bytes, self._position)
        if len(content) > MAX_DIRECTORY_BYTES or num_bytes > MAX_DIRECTORY_BYTES + 1:
            raise zipfile.BadZipFile(f"at most {MAX_DIRECTORY_BYTES} bytes are read at once")
        self._position += len(content)
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self._descriptor).st_size}[whence]
        if base + offset < 0:
            raise ValueError("a position before the file")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position
