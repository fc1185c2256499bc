"""Opens a model's weights on disk, and checks files, names, shapes and types against the config."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import ModelFormatError, UnsupportedModelError
from distilgpt2_api.core.model_files import safe_name
from distilgpt2_api.core.model_folder import CONFIG_FILE
from distilgpt2_api.model.architectures.architecture import Architecture
from distilgpt2_api.model.architectures.registry import architecture_of, count_weights, tensor_specs
from distilgpt2_api.model.weights.safetensors_file import SafetensorsFile
from distilgpt2_api.model.weights.tensor_file import TensorFile, TensorSpan
from distilgpt2_api.model.weights.weight_files import WeightFile, find_weight_files

WRAPPERS = frozenset({"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts of tensor names that torch.compile, data parallel training, FSDP and activation checkpointing add."""
ADAPTER = re.compile(r".*\.(lora_\w+|base_layer)\..+")
FLOAT_DTYPES = frozenset({"F32", "F16", "BF16"})
LEAST_ITEM_BYTES = 2
"""The smallest size of an element in `FLOAT_DTYPES`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """A tensor's file, and its name in that file."""

    file: TensorFile
    name: str

    @property
    def span(self) -> TensorSpan:
        return self.file.spans[self.name]

    def read(self) -> NDArray[np.float32]:
        """Values as float32, in their own memory. Raises ModelFormatError for NaN and infinity."""
        values = np.empty(self.span.shape, np.float32)
        flat = values.reshape(-1)
        for begin, part in self.file.parts(self.name):
            piece = flat[begin : begin + len(part)]
            piece[...] = _widen(part)
            if not is_finite(piece):
                raise ModelFormatError(f"{self.where} has values that are NaN or infinite")
        return values

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.file.path}: tensor {safe_name(self.name)}"


class Checkpoint:
    """A complete set of weights with the right shapes. `tensor` reads values, and checks them for NaN and infinity."""

    def __init__(self, tensors: Mapping[str, StoredTensor], config: ModelConfig) -> None:
        self._tensors = tensors
        self._config = config
        self.files = tuple(sorted({stored.file for stored in tensors.values()}, key=lambda file: file.path))
        """The open files of the weights."""

    def tensor(self, name: str) -> NDArray[np.float32]:
        """Values as float32, in their own memory. Raises ModelFormatError for NaN and infinity."""
        return self._tensors[name].read()

    def dtype(self, name: str) -> str:
        """The format's name of the stored type."""
        return self._tensors[name].span.dtype

    def check_tied_head(self) -> None:
        """Raises ModelFormatError if the config ties the embeddings, but the file has a different LM head."""
        architecture = architecture_of(self._config)
        lm_head, embedding = architecture.lm_head, architecture.embedding
        if not self._config.has_tied_embeddings or lm_head not in self._tensors:
            return
        head = self._tensors[lm_head]
        if head == self._tensors[embedding]:
            return
        if not np.array_equal(self.tensor(lm_head), self.tensor(embedding)):
            raise ModelFormatError(
                f"{head.file.path}: {lm_head} differs from {embedding}, but config.json sets tie_word_embeddings; "
                "set it to false if the model has its own head"
            )

    def check_unchanged(self) -> None:
        """Raises ModelFormatError if a file was written to since it was opened."""
        for file in self.files:
            file.check_unchanged()


def is_finite(values: NDArray[np.float32]) -> bool:
    return bool(np.isfinite(values).all())


def _widen(part: NDArray[Any]) -> NDArray[Any]:
    """bf16, read as uint16, is the upper half of a float32."""
    return (part.astype(np.uint32) << 16).view(np.float32) if part.dtype == np.uint16 else part


def open_checkpoint(folder: Path, config: ModelConfig) -> Checkpoint:
    """Opens the folder's safetensors files and checks every name, shape and type against the config.

    No value is read and no memory is allocated yet: a file that is too small for its config fails here. Raises
    ModelNotFoundError, ModelFormatError or UnsupportedModelError, naming the file and the tensor.
    """
    weight_files = [(weight_file, SafetensorsFile(weight_file.path)) for weight_file in find_weight_files(folder)]
    return check_checkpoint(folder, config, weight_files)


def check_checkpoint(
    folder: Path, config: ModelConfig, weight_files: Sequence[tuple[WeightFile, TensorFile]]
) -> Checkpoint:
    """The checkpoint in these open files, checked as `open_checkpoint` says."""
    architecture = architecture_of(config)
    tensors: dict[str, StoredTensor] = {}
    for name, stored in _stored_tensors(weight_files, architecture):
        if name in tensors:
            raise ModelFormatError(f"{stored.file.path}: tensor {safe_name(stored.name)} is stored twice")
        tensors[name] = stored
    _add_shared(tensors, [file for _, file in weight_files], config)
    _check_size(folder, config, sum(file.num_bytes for _, file in weight_files), tensors)
    shapes = {name: spec.shape for name, spec in tensor_specs(config).items()}
    missing = [name for name in shapes if name not in tensors]
    if missing:
        raise ModelFormatError(f"{folder}: {len(missing)} tensors are missing; the first is {missing[0]}")
    if config.has_tied_embeddings:
        shapes[architecture.lm_head] = shapes[architecture.embedding]  # redundant, but often stored
    for name, stored in tensors.items():
        if name not in shapes:
            raise UnsupportedModelError(f"{stored.where}: a model with this config has no such tensor")
        check_tensor(stored, shapes[name])
    return Checkpoint(tensors, config)


def _add_shared(tensors: dict[str, StoredTensor], files: Iterable[TensorFile], config: ModelConfig) -> None:
    """Adds tensors that were left out because they share memory with another one: safetensors' `save_model` keeps only
    one of a tied pair, and names the other in the metadata.
    """
    architecture = architecture_of(config)
    for file in files:
        for left_out, kept in file.metadata.items():
            if (stored := tensors.get(plain_name(kept, architecture))) is not None:
                tensors.setdefault(plain_name(left_out, architecture), stored)
    if config.has_tied_embeddings and architecture.lm_head in tensors:
        tensors.setdefault(architecture.embedding, tensors[architecture.lm_head])


def _check_size(folder: Path, config: ModelConfig, num_bytes: int, tensors: Mapping[str, StoredTensor]) -> None:
    architecture = architecture_of(config)
    head = tensors.get(architecture.lm_head)
    is_shared = head is not None and head == tensors.get(architecture.embedding)
    num_weights = count_weights(replace(config, has_tied_embeddings=config.has_tied_embeddings or is_shared))
    if num_weights * LEAST_ITEM_BYTES > num_bytes:
        raise ModelFormatError(
            f"{folder / 'config.json'}: describes {num_weights} weights, at least {num_weights * LEAST_ITEM_BYTES} "
            f"bytes, but the weight files have {num_bytes}"
        )


def _stored_tensors(
    weight_files: Iterable[tuple[WeightFile, TensorFile]], architecture: Architecture
) -> Iterator[tuple[str, StoredTensor]]:
    """All tensors except the ignored ones, by their names without prefixes."""
    for weight_file, file in weight_files:
        absent = weight_file.tensor_names - file.spans.keys()
        if absent:
            raise ModelFormatError(
                f"{file.path}: tensor {safe_name(min(absent))} is missing, but the index says that it is in this file"
            )
        for stored_name in file.spans:
            name = plain_name(stored_name, architecture)
            if ADAPTER.fullmatch(name):
                raise UnsupportedModelError(
                    f"{file.path}: tensor {safe_name(stored_name)} belongs to an adapter that is not merged; merge it "
                    "with PEFT: merge_and_unload(), then save_pretrained(folder)"
                )
            if not architecture.ignored.fullmatch(name):
                yield name, StoredTensor(file=file, name=stored_name)


def plain_name(stored_name: str, architecture: Architecture) -> str:
    """A tensor's name without the parts that training tools add."""
    name = ".".join(part for part in stored_name.split(".") if part not in WRAPPERS)
    for prefix in architecture.prefixes:
        name = name.removeprefix(prefix)
    return name


def check_tensor(stored: StoredTensor, shape: tuple[int, ...], source: str = CONFIG_FILE) -> None:
    """Raises ModelFormatError unless the tensor has this shape, which the file `source` requires; UnsupportedModelError
    unless its type is one of `FLOAT_DTYPES`.
    """
    span = stored.span
    if span.shape != shape:
        raise ModelFormatError(f"{stored.where} has shape {list(span.shape)}, but {source} requires {list(shape)}")
    if span.dtype not in FLOAT_DTYPES:
        raise UnsupportedModelError(f"{stored.where} has type {span.dtype}; supported are F32, F16 and BF16")
