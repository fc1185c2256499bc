"""A short GPT-2 in NumPy and float64, written from the paper without code of the package under test.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners". The options are those of `transformers`'
GPT2Config, read from the same config.json. `tensors` has GPT2LMHeadModel's names without `transformer.`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu_new": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "gelu": lambda x: 0.5 * x * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2))),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
}
ACTIVATIONS |= dict.fromkeys(("gelu_pytorch_tanh", "gelu_fast"), ACTIVATIONS["gelu_new"])
ACTIVATIONS["swish"] = ACTIVATIONS["silu"]


class NumpyGpt2:
    def __init__(self, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> None:
        self.config = config
        self.tensors = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}

    def logits(self, token_ids: Sequence[int]) -> Array:
        """(S,) → (S, V): row i has the logits of the token after i."""
        config, tensors = self.config, self.tensors
        x = tensors["wte.weight"][list(token_ids)] + tensors["wpe.weight"][: len(token_ids)]  # (S, C)
        for layer in range(config["n_layer"]):
            name = f"h.{layer}"
            x = x + self._attention(layer, self._norm(f"{name}.ln_1", x))
            inner = self._conv1d(f"{name}.mlp.c_fc", self._norm(f"{name}.ln_2", x))
            x = x + self._conv1d(
                f"{name}.mlp.c_proj", ACTIVATIONS[config.get("activation_function", "gelu_new")](inner)
            )
        head = "wte.weight" if config.get("tie_word_embeddings", True) else "lm_head.weight"
        logits: Array = self._norm("ln_f", x) @ tensors[head].T
        return logits

    def logprobs(self, token_ids: Sequence[int]) -> Array:
        """(S,) → (S, V): log-softmax of the logits."""
        logits = self.logits(token_ids)
        shifted = logits - logits.max(axis=-1, keepdims=True)
        logprobs: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        return logprobs

    def greedy(self, prompt: Sequence[int], num_tokens: int) -> list[int]:
        """The likeliest continuation, without a KV cache: each token is computed from scratch."""
        token_ids = list(prompt)
        for _ in range(num_tokens):
            token_ids.append(int(self.logits(token_ids)[-1].argmax()))
        return token_ids[len(prompt) :]

    def _attention(self, layer: int, x: Array) -> Array:
        num_heads, (length, width) = self.config["n_head"], x.shape
        qkv = self._conv1d(f"h.{layer}.attn.c_attn", x)  # (S, 3C)
        q, k, v = qkv.reshape(length, 3, num_heads, width // num_heads).transpose(1, 2, 0, 3)  # (H, S, D) each
        scores = q @ k.transpose(0, 2, 1)  # (H, S, S)
        if self.config.get("scale_attn_weights", True):
            scores = scores / math.sqrt(width // num_heads)
        if self.config.get("scale_attn_by_inverse_layer_idx", False):
            scores = scores / (layer + 1)
        scores = np.where(np.tri(length, dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights = weights / weights.sum(axis=-1, keepdims=True)
        attended = (weights @ v).transpose(1, 0, 2).reshape(length, width)
        return self._conv1d(f"h.{layer}.attn.c_proj", attended)

    def _conv1d(self, name: str, x: Array) -> Array:
        linear: Array = x @ self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]
        return linear

    def _norm(self, name: str, x: Array) -> Array:
        epsilon = self.config.get("layer_norm_epsilon", 1e-5)
        normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
        scaled: Array = normal * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]
        return scaled
