"""The interface of an architecture: how its config is read, and which tensors its checkpoints have."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.model.architectures.config_options import ConfigOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One tensor of a checkpoint."""

    name: str
    """Without the prefixes that training tools add."""
    shape: tuple[int, ...]
    """As it is stored."""
    is_matrix: bool = False
    """A matrix, stored as int8 if that is the precision. The other tensors are small and stay float32."""
    is_transposed: bool = False
    """Stored as (in, out); the kernels take matrices as (out, in)."""

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """As the kernels take it."""
        return self.shape[::-1] if self.is_transposed else self.shape


class Architecture(Protocol):
    """One folder below this one; `registry.py` names it by the config's `model_type`."""

    embedding: str
    """The token embedding's name."""
    lm_head: str
    """The LM head's name, if it is not the embedding."""
    prefixes: tuple[str, ...]
    """Prefixes of tensor names in checkpoints, in the order in which they are taken off."""
    ignored: re.Pattern[str]
    """Names, without prefixes, of tensors in checkpoints that the forward pass does not use."""

    def read_config(self, options: ConfigOptions) -> ModelConfig:
        """Raises ModelFormatError or UnsupportedModelError, each naming the file and the option."""

    def tensor_specs(self, config: ModelConfig) -> Iterable[TensorSpec]:
        """Every tensor that a model of this config has."""
