"""Merges a LoRA or DoRA adapter of PEFT into the weights of its base model.

LoRA (Hu et al. 2021): W + s·B·A, where s is alpha / r, or alpha / √r with rsLoRA (Kalajdzievski 2023). DoRA (Liu et
al. 2024): the rows of that sum, scaled to learned lengths. In the file A is (r, in) and B is (out, r), whatever the
layout of W. Tensors that the adapter has whole, such as biases and `modules_to_save`, replace the base model's.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import ModelFormatError, ModelNotFoundError, UnsupportedModelError
from distilgpt2_api.core.model_files import has_file, safe_name, safe_repr
from distilgpt2_api.model.architectures.architecture import TensorSpec
from distilgpt2_api.model.architectures.config_options import ConfigOptions
from distilgpt2_api.model.architectures.registry import architecture_of, tensor_specs
from distilgpt2_api.model.weights.checkpoint import StoredTensor, check_tensor, is_finite, plain_name
from distilgpt2_api.model.weights.pickled_file import PickledFile
from distilgpt2_api.model.weights.safetensors_file import SafetensorsFile
from distilgpt2_api.model.weights.tensor_file import TensorFile

CONFIG_FILE = "adapter_config.json"
WEIGHT_FILES: Mapping[str, type[TensorFile]] = {
    "adapter_model.safetensors": SafetensorsFile,
    "adapter_model.bin": PickledFile,
}
PART = re.compile(
    r"(.+)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)(\.default)?(\.weight)?"
)
WHOLE = re.compile(r"\.(base_layer|modules_to_save(\.default)?)(?=\.\w+$)")
"""Parts of the names of whole tensors in wrapped modules."""
PREFIX = "base_model.model."
LITERAL = re.compile(r"\^?([\w.]|\\\.)+")
"""A pattern of `rank_pattern` and `alpha_pattern` that is a module's name, or its end."""
MAX_RANK = 65_536
"""The largest rank, and the largest value of `lora_alpha`."""

UNSUPPORTED_OPTIONS = {
    "alora_invocation_tokens": "adapters that apply to some tokens only",
    "arrow_config": "routing between adapters",
    "kasa_config": "KaSA",
    "layer_replication": "replicated layers",
    "lora_bias": "biases in the adapter's own matrices",
    "megatron_config": "Megatron's parallel layers",
    "monteclora_config": "MonteCLoRA",
    "target_parameters": "adapters of parameters outside of layers",
    "trainable_token_indices": "adapters of single tokens",
    "use_bdlora": "BD-LoRA",
    "use_qalora": "QA-LoRA",
}
"""Options of PEFT that change what the tensors mean."""
OWN_BASE = re.compile(r"(pissa|olora|corda|loftq|lora_ga).*")
"""Values of `init_lora_weights` that train on a changed base model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraModule:
    """One layer's part of the adapter."""

    a: StoredTensor
    """(r, in)"""
    b: StoredTensor
    """(out, r)"""
    scale: float
    is_transposed: bool
    """Whether the layer's weight is stored as (in, out)."""
    magnitude: StoredTensor | None
    """(out,): DoRA's. None: LoRA."""

    def merge(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = weight.T if self.is_transposed else weight  # (out, in)
        with np.errstate(all="ignore"):  # the caller checks the result
            merged = rows + np.float32(self.scale) * (self.b.read() @ self.a.read())
            if self.magnitude is not None:
                merged *= (self.magnitude.read() / np.linalg.norm(merged, axis=1))[:, None]
        return np.ascontiguousarray(merged.T if self.is_transposed else merged)


class Adapter:
    """An adapter that fits its base model's config."""

    def __init__(self, wholes: Mapping[str, StoredTensor], modules: Mapping[str, LoraModule], file: TensorFile) -> None:
        self._wholes = wholes
        self._modules = modules
        self.file = file

    def changes(self, name: str) -> bool:
        return name in self._wholes or name in self._modules

    def merge(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The base model's tensor `name` with the adapter applied. Raises ModelFormatError for NaN and infinity."""
        if (whole := self._wholes.get(name)) is not None:
            values = whole.read()
        if (module := self._modules.get(name)) is None:
            return values
        merged = module.merge(values)
        if not is_finite(merged):
            raise ModelFormatError(f"{self.file.path}: merging it into {name} gives values that are NaN or infinite")
        return merged


def open_adapter(folder: Path, config: ModelConfig) -> Adapter:
    """Opens the adapter in `folder` and checks its options, names, shapes and types against the base model's config.

    Raises ModelNotFoundError, ModelFormatError or UnsupportedModelError, naming the file and the option or tensor.
    """
    options = _read_options(folder)
    file = _open_weights(folder)
    architecture, specs = architecture_of(config), tensor_specs(config)
    if config.has_tied_embeddings:
        specs[architecture.lm_head] = replace(specs[architecture.embedding], name=architecture.lm_head)
    wholes: dict[str, StoredTensor] = {}
    parts: dict[str, dict[str, StoredTensor]] = {}
    for name in file.spans:
        stored = StoredTensor(file=file, name=name)
        bare = name.removeprefix(PREFIX)
        if found := PART.fullmatch(bare):
            parts.setdefault(found[1], {})[found[2]] = stored
            continue
        plain = plain_name(WHOLE.sub("", bare), architecture)
        if plain not in specs:
            raise UnsupportedModelError(f"{stored.where}: the base model has no such tensor")
        check_tensor(stored, specs[plain].shape)
        wholes[plain] = stored
    modules = {}
    for module, tensors in parts.items():
        weight = plain_name(f"{module}.weight", architecture)
        if weight not in specs or len(specs[weight].shape) != 2:
            raise UnsupportedModelError(f"{next(iter(tensors.values())).where}: the base model has no such layer")
        modules[weight] = _lora_module(module, tensors, specs[weight], options, file)
    return Adapter(wholes, modules, file)


def _read_options(folder: Path) -> ConfigOptions:
    options = ConfigOptions.read(folder, CONFIG_FILE)
    if (kind := options.values.get("peft_type")) != "LORA":
        raise UnsupportedModelError(f"{options.path}: peft_type {safe_repr(kind)} is not supported; supported: LORA")
    options.refuse(UNSUPPORTED_OPTIONS)
    start = options.values.get("init_lora_weights")
    if isinstance(start, str) and OWN_BASE.fullmatch(start):
        raise UnsupportedModelError(
            f"{options.path}: init_lora_weights {safe_repr(start)} changes the base model; save the adapter with "
            "path_initial_model_for_weight_conversion of PEFT"
        )
    return options


def _open_weights(folder: Path) -> TensorFile:
    for name, open_file in WEIGHT_FILES.items():
        if has_file(folder / name):
            return open_file(folder / name)
    raise ModelNotFoundError(f"{folder}: not an adapter: it has neither {' nor '.join(WEIGHT_FILES)}")


def _lora_module(
    module: str, parts: Mapping[str, StoredTensor], spec: TensorSpec, options: ConfigOptions, file: TensorFile
) -> LoraModule:
    is_embedding = "lora_embedding_A" in parts
    names = ("lora_embedding_A", "lora_embedding_B") if is_embedding else ("lora_A", "lora_B")
    magnitude = parts.get("lora_magnitude_vector")
    allowed = {*names} if is_embedding else {*names, "lora_magnitude_vector"}
    if not {*names} <= parts.keys() <= allowed or (magnitude is not None) != options.flag("use_dora", default=False):
        raise UnsupportedModelError(
            f"{file.path}: {safe_name(module)} has {', '.join(sorted(parts))}, which do not make a layer of the adapter"
        )
    is_transposed = spec.is_transposed or is_embedding
    num_out, num_in = spec.shape[::-1] if is_transposed else spec.shape
    rank = int(_option_of(module, "r", "rank_pattern", options))
    a, b = (parts[name] for name in names)
    check_tensor(a, (rank, num_in), CONFIG_FILE)
    check_tensor(b, (num_out, rank), CONFIG_FILE)
    if magnitude is not None:
        check_tensor(magnitude, (num_out,), CONFIG_FILE)
    alpha = _option_of(module, "lora_alpha", "alpha_pattern", options)
    root = math.sqrt(rank) if options.flag("use_rslora", default=False) else rank
    return LoraModule(a=a, b=b, scale=alpha / root, is_transposed=is_transposed, magnitude=magnitude)


def _option_of(module: str, name: str, patterns_name: str, options: ConfigOptions) -> float:
    """The option's value for a module: of the first pattern that is its name, or its name's end, else the default."""
    patterns = options.values.get(patterns_name) or {}
    if not isinstance(patterns, dict):
        raise ModelFormatError(f"{options.path}: {patterns_name} must be an object")
    label, value = name, options.values.get(name, 8)
    for pattern, special in patterns.items():
        if not LITERAL.fullmatch(pattern):
            raise UnsupportedModelError(
                f"{options.path}: {patterns_name} has the pattern {safe_repr(pattern)}; supported are modules' names"
            )
        wanted = pattern.replace("\\", "")
        if f"^{module}" == wanted or f".{module}".endswith(f".{wanted}"):
            label, value = patterns_name, special
            break
    is_rank = name == "r"
    if type(value) not in ((int,) if is_rank else (int, float)) or not 0 < value <= MAX_RANK:
        raise ModelFormatError(
            f"{options.path}: {label} is {safe_repr(value)}; it must be a {'whole ' if is_rank else ''}number above 0,"
            f" at most {MAX_RANK}"
        )
    return float(value)
