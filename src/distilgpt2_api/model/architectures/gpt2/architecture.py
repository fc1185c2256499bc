"""GPT-2 (Radford et al. 2019) as one of the architectures."""

import re
from collections.abc import Iterator

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.model.architectures.architecture import TensorSpec
from distilgpt2_api.model.architectures.config_options import ConfigOptions
from distilgpt2_api.model.architectures.gpt2.config import read_gpt2_config


class Gpt2:
    """`model_type` gpt2."""

    embedding = "wte.weight"
    lm_head = "lm_head.weight"
    prefixes: tuple[str, ...] = ("base_model.model.", "transformer.")
    """PEFT's, and GPT2LMHeadModel's."""
    ignored = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)|(multiple_choice_head|v_head)\..+")
    """Causal masks that old checkpoints saved as buffers; GPT2DoubleHeadsModel's second head, and TRL's value head."""

    def read_config(self, options: ConfigOptions) -> ModelConfig:
        return read_gpt2_config(options)

    def tensor_specs(self, config: ModelConfig) -> Iterator[TensorSpec]:
        """V vocabulary, P positions, C width, I inner width. Conv1D weights are stored as (in, out)."""
        width, inner = config.width, config.inner_width
        yield TensorSpec(name=self.embedding, shape=(config.vocab_size, width), is_matrix=True)  # (V, C)
        yield TensorSpec(name="wpe.weight", shape=(config.num_positions, width))  # (P, C)
        for layer in range(config.num_layers):
            yield from _layer_norm(f"h.{layer}.ln_1", width)
            yield from _conv1d(f"h.{layer}.attn.c_attn", width, 3 * width)
            yield from _conv1d(f"h.{layer}.attn.c_proj", width, width)
            yield from _layer_norm(f"h.{layer}.ln_2", width)
            yield from _conv1d(f"h.{layer}.mlp.c_fc", width, inner)
            yield from _conv1d(f"h.{layer}.mlp.c_proj", inner, width)
        yield from _layer_norm("ln_f", width)
        if not config.has_tied_embeddings:
            yield TensorSpec(name=self.lm_head, shape=(config.vocab_size, width), is_matrix=True)  # (V, C)


def _layer_norm(name: str, width: int) -> Iterator[TensorSpec]:
    yield TensorSpec(name=f"{name}.weight", shape=(width,))
    yield TensorSpec(name=f"{name}.bias", shape=(width,))


def _conv1d(name: str, num_in: int, num_out: int) -> Iterator[TensorSpec]:
    yield TensorSpec(name=f"{name}.weight", shape=(num_in, num_out), is_matrix=True, is_transposed=True)
    yield TensorSpec(name=f"{name}.bias", shape=(num_out,))
