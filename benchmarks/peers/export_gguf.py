"""Writes a model folder as GGUF, for llama.cpp. Its own converter needs PyTorch and transformers; this does not.

    PYTHON -m benchmarks.peers.export_gguf FOLDER FILE --type Q8_0

All matrices get the same type, including the LM head, because the file is for measuring speed. (llama.cpp's own
mixtures give the head more bits than Q4_0: a little slower, and better.)
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
from benchmarks.peers.checkpoint import read_checkpoint, read_merges, read_tokens

NAMES = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
OUTER_NAMES = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--type", choices=("Q8_0", "Q4_0"), default="Q8_0")
    args = parser.parse_args()
    args.file.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(args.file, "gpt2")
    describe(writer, args.folder)
    matrix_type = gguf.GGMLQuantizationType[args.type]
    for name, tensor in read_checkpoint(args.folder).items():
        is_conv = name.endswith(".weight") and tensor.ndim == 2 and name.startswith("h.")
        values = np.ascontiguousarray(tensor.T if is_conv else tensor)  # Conv1D's are (in, out)
        if is_conv or name == "wte.weight":
            packed = gguf.quants.quantize(values, matrix_type)
            writer.add_tensor(rename(name), packed, raw_dtype=matrix_type)
        else:
            writer.add_tensor(rename(name), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def describe(writer: gguf.GGUFWriter, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    writer.add_block_count(config["n_layer"])
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(1e-5)
    tokens = read_tokens(folder)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * (len(tokens) - 1) + [gguf.TokenType.CONTROL])
    writer.add_token_merges(read_merges(folder))
    writer.add_bos_token_id(len(tokens) - 1)
    writer.add_eos_token_id(len(tokens) - 1)


def rename(name: str) -> str:
    """`h.3.mlp.c_fc.bias` → `blk.3.ffn_up.bias`"""
    stem, _, kind = name.rpartition(".")
    if stem in OUTER_NAMES:
        return f"{OUTER_NAMES[stem]}.{kind}"
    _, layer, part = stem.split(".", 2)
    return f"blk.{layer}.{NAMES[part]}.{kind}"


if __name__ == "__main__":
    main()
