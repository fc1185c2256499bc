"""A GPT-2's weights on disk: which files, which tensors, whether all of them are what the config says.

Tensors go by the names of `transformers`' GPT2LMHeadModel without the `transformer.` prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import ModelFormatError, UnsupportedModelError
from distilgpt2_api.model.safetensors_file import SafetensorsFile
from distilgpt2_api.model.weight_files import find_weight_files

PREFIX = "transformer."
IGNORED = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)|multiple_choice_head\..+")
"""Causal masks that old checkpoints saved as buffers, and GPT2DoubleHeadsModel's second head."""
LM_HEAD = "lm_head.weight"
FLOAT_DTYPES = frozenset({"F32", "F16", "BF16"})
FINITE_CHECK_ITEMS = 1 << 22
"""Elements checked at once: the boolean temporary stays at 4 MB."""


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor that a GPT-2 of this shape has. Conv1D weights are (in, out)."""
    width, inner = config.width, config.inner_width
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (config.vocab_size, width),
        "wpe.weight": (config.num_positions, width),
    }
    for layer in range(config.num_layers):
        shapes |= {
            f"h.{layer}.ln_1.weight": (width,),
            f"h.{layer}.ln_1.bias": (width,),
            f"h.{layer}.attn.c_attn.weight": (width, 3 * width),
            f"h.{layer}.attn.c_attn.bias": (3 * width,),
            f"h.{layer}.attn.c_proj.weight": (width, width),
            f"h.{layer}.attn.c_proj.bias": (width,),
            f"h.{layer}.ln_2.weight": (width,),
            f"h.{layer}.ln_2.bias": (width,),
            f"h.{layer}.mlp.c_fc.weight": (width, inner),
            f"h.{layer}.mlp.c_fc.bias": (inner,),
            f"h.{layer}.mlp.c_proj.weight": (inner, width),
            f"h.{layer}.mlp.c_proj.bias": (width,),
        }
    shapes |= {"ln_f.weight": (width,), "ln_f.bias": (width,)}
    if not config.has_tied_embeddings:
        shapes[LM_HEAD] = (config.vocab_size, width)
    return shapes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """Where a tensor is: in which file, under which name."""

    file: SafetensorsFile
    name: str


class Checkpoint:
    """A complete, well-shaped set of weights. Values are read, and checked for NaN and infinity, by `tensor`."""

    def __init__(self, tensors: Mapping[str, StoredTensor], config: ModelConfig) -> None:
        self._tensors = tensors
        self._config = config
        self.paths = tuple(sorted({stored.file.path for stored in tensors.values()}))
        """The files that the weights are in."""

    def tensor(self, name: str) -> NDArray[np.float32]:
        """Values as float32, read-only where they are stored so. Raises ModelFormatError for NaN and infinity."""
        stored = self._tensors[name]
        raw = stored.file.view(stored.name)
        if raw.dtype == np.uint16:  # bf16: the upper half of a float32
            values = (raw.astype(np.uint32) << 16).view(np.float32)
        else:
            values = raw.astype(np.float32, copy=False)
        if not is_finite(values):
            raise ModelFormatError(f"{stored.file.path}: tensor {stored.name} has values that are NaN or infinite")
        return values

    def check_tied_head(self) -> None:
        """Raises ModelFormatError if embeddings are tied by the config, but the file has another LM head of its own."""
        if not self._config.has_tied_embeddings or LM_HEAD not in self._tensors:
            return
        if not np.array_equal(self.tensor(LM_HEAD), self.tensor("wte.weight")):
            file = self._tensors[LM_HEAD].file.path
            raise ModelFormatError(
                f"{file}: lm_head.weight differs from wte.weight, but config.json says tie_word_embeddings; "
                "set it to false there if the head is the model's own"
            )


def is_finite(values: NDArray[np.float32]) -> bool:
    flat = values.reshape(-1)
    parts = (flat[start : start + FINITE_CHECK_ITEMS] for start in range(0, flat.size, FINITE_CHECK_ITEMS))
    return all(bool(np.isfinite(part).all()) for part in parts)


def open_checkpoint(folder: Path, config: ModelConfig) -> Checkpoint:
    """Maps the folder's safetensors files and checks every name, shape and type against the config.

    No value is read yet, and no memory taken: a file smaller than its config claims fails here. Raises
    ModelNotFoundError, ModelFormatError or UnsupportedModelError, naming the file and the tensor.
    """
    tensors: dict[str, StoredTensor] = {}
    for name, stored in _stored_tensors(folder):
        if name in tensors:
            raise ModelFormatError(f"{stored.file.path}: tensor {stored.name}: stored twice")
        tensors[name] = stored
    shapes = expected_shapes(config)
    missing = [name for name in shapes if name not in tensors]
    if missing:
        raise ModelFormatError(f"{folder}: {len(missing)} tensors are missing, the first is {missing[0]}")
    if config.has_tied_embeddings:
        shapes[LM_HEAD] = shapes["wte.weight"]  # redundant, but often there
    for name, stored in tensors.items():
        _check_tensor(name, stored, shapes)
    return Checkpoint(tensors, config)


def _stored_tensors(folder: Path) -> Iterator[tuple[str, StoredTensor]]:
    """All tensors but the ignored ones, by their names without prefix."""
    for weight_file in find_weight_files(folder):
        file = SafetensorsFile(weight_file.path)
        absent = weight_file.tensor_names - file.spans.keys()
        if absent:
            raise ModelFormatError(f"{file.path}: tensor {min(absent)} is missing; the index says that it is here")
        for stored_name in file.spans:
            name = stored_name.removeprefix(PREFIX)
            if not IGNORED.fullmatch(name):
                yield name, StoredTensor(file=file, name=stored_name)


def _check_tensor(name: str, stored: StoredTensor, shapes: Mapping[str, tuple[int, ...]]) -> None:
    where = f"{stored.file.path}: tensor {stored.name}"
    if name not in shapes:
        raise UnsupportedModelError(f"{where}: a GPT-2 of this config has no such tensor")
    span = stored.file.spans[stored.name]
    if span.shape != shapes[name]:
        raise ModelFormatError(f"{where}: shape {list(span.shape)}; config.json asks for {list(shapes[name])}")
    if span.dtype not in FLOAT_DTYPES:
        raise UnsupportedModelError(f"{where}: type {span.dtype}; supported are F32, F16 and BF16")
