"""Writes a model folder in CTranslate2's format, int8. Its own converter needs PyTorch and transformers; this does not.

PYTHON -m benchmarks.peers.export_ctranslate2 FOLDER TARGET
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.peers.checkpoint import read_checkpoint, read_tokens
from ctranslate2.specs import Activation, TransformerDecoderModelSpec
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[np.float32]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    config = json.loads((args.folder / "config.json").read_text())
    tensors = read_checkpoint(args.folder)
    spec = TransformerDecoderModelSpec.from_config(
        config["n_layer"], config["n_head"], pre_norm=True, activation=Activation.GELUTanh
    )
    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = decoder.projection.weight = tensors["wte.weight"]
    decoder.position_encodings.encodings = tensors["wpe.weight"]
    _set_norm(decoder.layer_norm, tensors, "ln_f")
    for index, layer in enumerate(decoder.layer):
        name = f"h.{index}"
        _set_norm(layer.self_attention.layer_norm, tensors, f"{name}.ln_1")
        _set_linear(layer.self_attention.linear[0], tensors, f"{name}.attn.c_attn")
        _set_linear(layer.self_attention.linear[1], tensors, f"{name}.attn.c_proj")
        _set_norm(layer.ffn.layer_norm, tensors, f"{name}.ln_2")
        _set_linear(layer.ffn.linear_0, tensors, f"{name}.mlp.c_fc")
        _set_linear(layer.ffn.linear_1, tensors, f"{name}.mlp.c_proj")
    tokens = read_tokens(args.folder)
    spec.register_vocabulary(tokens)
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = tokens[-1]
    spec.validate()
    spec.optimize(quantization="int8")
    args.target.mkdir(parents=True, exist_ok=True)
    spec.save(str(args.target))


def _set_norm(spec: Any, tensors: Tensors, name: str) -> None:
    spec.gamma, spec.beta = tensors[f"{name}.weight"], tensors[f"{name}.bias"]


def _set_linear(spec: Any, tensors: Tensors, name: str) -> None:
    """GPT-2's are (in, out)."""
    spec.weight, spec.bias = np.ascontiguousarray(tensors[f"{name}.weight"].T), tensors[f"{name}.bias"]


if __name__ == "__main__":
    main()
