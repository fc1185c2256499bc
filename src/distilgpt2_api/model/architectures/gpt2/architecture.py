"""GPT-2 (Radford et al. 2019) as one of the architectures."""

from __future__ import annotations

import re
from collections.abc import Iterable

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.model.architectures.architecture import TensorSpec
from distilgpt2_api.model.architectures.config_options import ConfigOptions
from distilgpt2_api.model.architectures.gpt2.config import read_gpt2_config
from distilgpt2_api.model.architectures.gpt2.tensors import EMBEDDING, LM_HEAD, gpt2_tensor_specs


class Gpt2:
    """`model_type` gpt2."""

    embedding = EMBEDDING
    lm_head = LM_HEAD
    prefixes: tuple[str, ...] = ("base_model.model.", "transformer.")
    """PEFT's, and GPT2LMHeadModel's."""
    ignored = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)|(multiple_choice_head|v_head)\..+")
    """Causal masks that old checkpoints saved as buffers; GPT2DoubleHeadsModel's second head, and TRL's value head."""

    def read_config(self, options: ConfigOptions) -> ModelConfig:
        return read_gpt2_config(options)

    def tensor_specs(self, config: ModelConfig) -> Iterable[TensorSpec]:
        return gpt2_tensor_specs(config)
