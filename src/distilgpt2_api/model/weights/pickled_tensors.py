"""The names that a pickle of PyTorch may have, and the values that are built here instead of calling them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from distilgpt2_api.core.model_files import safe_name
from distilgpt2_api.model.weights.tensor_file import MAX_RANK

STORAGE_DTYPES = {
    "torch.FloatStorage": "F32",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.DoubleStorage": "F64",
    "torch.LongStorage": "I64",
    "torch.IntStorage": "I32",
    "torch.ShortStorage": "I16",
    "torch.CharStorage": "I8",
    "torch.ByteStorage": "U8",
    "torch.BoolStorage": "BOOL",
}  # fmt: skip
"""PyTorch's types of storages, by the dtype names of safetensors."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name in the pickle, never the object that has this name."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Flat memory, of which tensors are views."""

    dtype: str
    key: str
    num_items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PickledTensor:
    """A view of a storage. Offset and strides count items."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def num_items(self) -> int:
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        """The index after the last item in the storage."""
        if not self.num_items:
            return self.offset
        return self.offset + 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))

    @property
    def is_contiguous(self) -> bool:
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size > 1 and stride != expected:
                return False
            expected *= size
        return True


class MalformedPickleError(Exception):
    """`torch.save` does not write such a pickle. `read_pickle` adds the file's name: a ModelFormatError."""


class RefusedPickleError(Exception):
    """A pickle of more than tensors and plain values. `read_pickle` adds the file's name: an UnsupportedModelError."""


def parse_global(name: str) -> Global:
    if name not in CALLABLES and name not in STORAGE_DTYPES:
        raise RefusedPickleError(f"the pickle refers to {safe_name(name)}, which could run code")
    return Global(name)


def parse_storage(value: object) -> Storage:
    """From a persistent id: `("storage", type, key, location, number of items)`, in old files with a view besides."""
    match value:
        case ("storage", Global(name), str(key), str(), int(num_items), *views) if name in STORAGE_DTYPES:
            if views not in ([], [None]):
                raise RefusedPickleError("the pickle has a view of a storage")
            if not _are_counts([num_items]):
                raise MalformedPickleError("a storage has an impossible size")
            return Storage(dtype=STORAGE_DTYPES[name], key=key, num_items=num_items)
    raise MalformedPickleError("a persistent id is no storage")


def call(called: object, arguments: object) -> Any:
    if not isinstance(called, Global) or called.name not in CALLABLES or not isinstance(arguments, tuple):
        raise MalformedPickleError("a value that is no function is called")
    return CALLABLES[called.name](arguments)


def _dictionary(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if arguments:
        raise MalformedPickleError("a dictionary has arguments")
    return {}


def _tensor(arguments: tuple[Any, ...]) -> PickledTensor:
    """Storage, offset, shape and strides; then whether it has a gradient, hooks and metadata, which are ignored."""
    match arguments:
        case (Storage() as storage, int(offset), tuple(shape), tuple(strides), *_):
            pass
        case _:
            raise MalformedPickleError("a tensor has impossible arguments")
    if len(shape) != len(strides) or len(shape) > MAX_RANK or not _are_counts([offset, *shape, *strides]):
        raise MalformedPickleError("a tensor has an impossible shape")
    tensor = PickledTensor(storage=storage, offset=offset, shape=shape, strides=strides)
    # A tensor with more items than its storage repeats them, and could be any size.
    if tensor.end > storage.num_items or tensor.num_items > storage.num_items:
        raise MalformedPickleError("a tensor is larger than its storage")
    return tensor


def _parameter(arguments: tuple[Any, ...]) -> PickledTensor:
    if not arguments or not isinstance(arguments[0], PickledTensor):
        raise MalformedPickleError("a parameter is no tensor")
    return arguments[0]


def _are_counts(values: list[Any]) -> bool:
    """Non-negative integers of at most 63 bits, without booleans."""
    return all(type(value) is int and 0 <= value < 2**63 for value in values)


CALLABLES: Mapping[str, Callable[[tuple[Any, ...]], Any]] = {
    "collections.OrderedDict": _dictionary,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
"""The names that state dicts call, and what they build here."""
