"""Writes files as `torch.save` does, without PyTorch: a state dict as a zip archive, or in the format before 1.6.

`tests/parity` compares our reader with files that PyTorch itself has written.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

MAGIC = 0x1950A86A20F9469CFC6C
MACHINE = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
STORAGES = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "uint16": "BFloat16Storage",
    "float64": "DoubleStorage",
    "int64": "LongStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}
"""By the name of NumPy's type; uint16 stands for the bits of bf16."""
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A tensor that is a part of a storage, or reads it in another order. Offset and strides count items."""

    storage: NDArray[Any]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, values: NDArray[Any]) -> View:
        """A tensor alone in its storage."""
        strides = tuple(stride // values.itemsize for stride in values.strides)
        return cls(storage=values.reshape(-1), offset=0, shape=values.shape, strides=strides)


def save(
    tensors: Mapping[str, NDArray[Any] | View], *, is_legacy: bool = False, wrapped_in: str | None = None
) -> bytes:
    """The file of a state dict. `wrapped_in`: the key of a dictionary that has it, beside a number and a list."""
    views = {name: value if isinstance(value, View) else View.of(value) for name, value in tensors.items()}
    storages: dict[int, NDArray[Any]] = {id(view.storage): view.storage for view in views.values()}
    keys = {identity: str(index) for index, identity in enumerate(storages)}
    items = b"".join(text(name) + _tensor(view, keys[id(view.storage)]) for name, view in views.items())
    state = ORDERED_DICT + b"(" + items + b"u}" + text("_metadata") + ORDERED_DICT + b"sb"
    if wrapped_in is not None:
        state = (
            b"}(" + text("epoch") + integer(3) + text(wrapped_in) + state + text("losses") + b"]G" + bytes(8) + b"au"
        )
    content = b"\x80\x02" + state + b"."
    named = {keys[identity]: storage for identity, storage in storages.items()}
    return pack_legacy(content, named) if is_legacy else pack_zip(content, named)


def pack_zip(content: bytes, storages: Mapping[str, NDArray[Any]]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", "little")
        for key, storage in storages.items():
            archive.writestr(f"archive/data/{key}", storage.tobytes())
        archive.writestr("archive/version", "3\n")
    return target.getvalue()


def pack_legacy(content: bytes, storages: Mapping[str, NDArray[Any]]) -> bytes:
    head = [pickle.dumps(value, protocol=2) for value in (MAGIC, 1001, MACHINE)]
    data = [struct.pack("<q", storage.size) + storage.tobytes() for storage in storages.values()]
    return b"".join([*head, content, pickle.dumps([*storages], protocol=2), *data])


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def integers(values: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def _tensor(view: View, key: str) -> bytes:
    storage = b"(" + text("storage") + f"ctorch\n{STORAGES[str(view.storage.dtype)]}\n".encode() + text(key)
    storage += text("cpu") + integer(view.storage.size) + b"tQ"
    shape = integer(view.offset) + integers(view.shape) + integers(view.strides)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + shape + b"\x89" + ORDERED_DICT + b"tR"
