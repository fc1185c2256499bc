"""Makes a folder with a GPT-2 of random weights: the shape and speed of a real model, without meaningful text.

python benchmarks/make_model.py FOLDER                 DistilGPT-2's shape, float16
python benchmarks/make_model.py FOLDER --layers 12     GPT-2's
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
END_OF_TEXT = "<|endoftext|>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--vocab", type=int, default=50257)
    parser.add_argument("--positions", type=int, default=1024)
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", type=Path, help="folder to copy a tokenizer from (default: a generated one)")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_layer": args.layers,
        "n_head": args.heads,
        "n_embd": args.width,
        "n_positions": args.positions,
        "vocab_size": args.vocab,
        "activation_function": "gelu_new",
        "bos_token_id": args.vocab - 1,
        "eos_token_id": args.vocab - 1,
    }
    (args.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    rng = np.random.default_rng(args.seed)
    save_file(random_tensors(rng, args), args.folder / "model.safetensors", metadata={"format": "pt"})
    if args.tokenizer is None:
        write_tokenizer(args.folder, args.vocab)
    else:
        for name in TOKENIZER_FILES:
            if (args.tokenizer / name).exists():
                shutil.copyfile(args.tokenizer / name, args.folder / name)
    print(args.folder)


def random_tensors(rng: np.random.Generator, args: argparse.Namespace) -> dict[str, NDArray[np.floating]]:
    """GPT-2's initialisation: normal, 0.02; residual projections are divided by the square root of their number."""
    width, inner = args.width, 4 * args.width

    def normal(*shape: int, std: float = 0.02) -> NDArray[np.floating]:
        return (rng.standard_normal(shape, np.float32) * np.float32(std)).astype(args.dtype)

    def norm(name: str) -> dict[str, NDArray[np.floating]]:
        return {f"{name}.weight": np.ones(width, args.dtype), f"{name}.bias": np.zeros(width, args.dtype)}

    residual_std = 0.02 / (2 * args.layers) ** 0.5
    tensors = {"wte.weight": normal(args.vocab, width), "wpe.weight": normal(args.positions, width, std=0.01)}
    for layer in range(args.layers):
        name = f"h.{layer}"
        tensors |= norm(f"{name}.ln_1") | norm(f"{name}.ln_2")
        for part, num_in, num_out, std in (
            ("attn.c_attn", width, 3 * width, 0.02),
            ("attn.c_proj", width, width, residual_std),
            ("mlp.c_fc", width, inner, 0.02),
            ("mlp.c_proj", inner, width, residual_std),
        ):
            tensors[f"{name}.{part}.weight"] = normal(num_in, num_out, std=std)
            tensors[f"{name}.{part}.bias"] = np.zeros(num_out, args.dtype)
    return {f"transformer.{name}": tensor for name, tensor in (tensors | norm("ln_f")).items()}


def write_tokenizer(folder: Path, vocab_size: int) -> None:
    """Write a byte-level BPE of the right size: the 256 bytes, pairs of them, longer tokens, and `END_OF_TEXT` last."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    # GPT-2's alphabet: a printable byte is its own character, the others are code points from 256 on.
    alphabet = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]
    if vocab_size <= len(alphabet):
        raise SystemExit(f"--vocab must be above {len(alphabet)} for a byte-level tokenizer")
    tokens, merges = list(alphabet), []
    letters = alphabet[alphabet.index("a") : alphabet.index("z") + 1]
    known = set(tokens)
    left = 0
    candidates = [*letters, "\u0120"]  # \u0120: the space
    while len(tokens) < vocab_size - 1:
        for letter in letters:
            pair = candidates[left] + letter
            if pair not in known and len(tokens) < vocab_size - 1:
                known.add(pair)
                tokens.append(pair)
                merges.append(f"{candidates[left]} {letter}")
                candidates.append(pair)
        left += 1
    vocab = {token: index for index, token in enumerate([*tokens, END_OF_TEXT])}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
