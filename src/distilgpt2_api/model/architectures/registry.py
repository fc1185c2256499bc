"""The supported architectures, by the `model_type` of their config.json."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import UnsupportedModelError
from distilgpt2_api.core.model_files import safe_repr
from distilgpt2_api.model.architectures.architecture import Architecture, TensorSpec
from distilgpt2_api.model.architectures.config_options import ConfigOptions
from distilgpt2_api.model.architectures.gpt2.architecture import Gpt2

ARCHITECTURES: Mapping[str, Architecture] = {"gpt2": Gpt2()}
DEFAULT_MODEL_TYPE = "gpt2"
"""For a config.json without `model_type`, as in OpenAI's first release."""


def read_model_config(folder: Path) -> ModelConfig:
    """The config of the model in `folder`.

    Raises ModelNotFoundError (no config.json), ModelFormatError (a bad value) or UnsupportedModelError (an architecture
    or an option that is not implemented), each naming the file and the option.
    """
    options = ConfigOptions.read(folder)
    model_type = options.values.get("model_type", DEFAULT_MODEL_TYPE)
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        supported = ", ".join(ARCHITECTURES)
        raise UnsupportedModelError(
            f"{options.path}: model_type {safe_repr(model_type)} is not supported; supported: {supported}"
        )
    return replace(ARCHITECTURES[model_type].read_config(options), model_type=model_type)


def architecture_of(config: ModelConfig) -> Architecture:
    return ARCHITECTURES[config.model_type]


def tensor_specs(config: ModelConfig) -> dict[str, TensorSpec]:
    """Every tensor of the model, by name."""
    return {spec.name: spec for spec in architecture_of(config).tensor_specs(config)}


def count_weights(config: ModelConfig) -> int:
    """The number of elements of all tensors."""
    return sum(spec.num_elements for spec in architecture_of(config).tensor_specs(config))
