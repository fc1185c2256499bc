"""The usual baseline: `generate()` of transformers on PyTorch, float32, with a static batch.

    PYTHON benchmarks/transformers_baseline.py FOLDER --batch 1,8,32

needs a Python with torch and transformers, and imports nothing of this project. `--serve` reads batch sizes from stdin,
one per line, and answers each with a line of JSON, so that another benchmark can alternate with it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=lambda text: [int(size) for size in text.split(",")], default=[1, 8, 32])
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's default")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--serve", action="store_true")
    args = parser.parse_args()
    model = load(args)
    if args.serve:
        print("{}", flush=True)  # ready
        for line in sys.stdin:
            print(json.dumps(measure(model, int(line), args)), flush=True)
    else:
        for batch in args.batch:
            runs = [measure(model, batch, args)["tokens_per_s"] for _ in range(args.repeats)]
            print(f"{batch:3} sequences: {max(runs):7.1f} tokens/s at best, {min(runs):7.1f} at worst")


def load(args: argparse.Namespace) -> Any:
    import torch  # type: ignore[import-not-found, unused-ignore]  # an optional install
    import transformers  # type: ignore[import-not-found, unused-ignore]  # the same

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    if args.threads:
        torch.set_num_threads(args.threads)
    model = transformers.GPT2LMHeadModel.from_pretrained(args.folder, dtype=getattr(torch, args.dtype))
    return model.eval()


def measure(model: Any, batch: int, args: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second of one batch, with top-k 50 as in the other benchmarks, and no early end of text."""
    import torch
    import transformers

    prompt = torch.randint(0, model.config.vocab_size - 1, (batch, args.prompt_tokens))
    start_s = time.perf_counter()
    with torch.inference_mode():
        output = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=True,
            top_k=50,
            min_new_tokens=args.new_tokens,
            max_new_tokens=args.new_tokens,
            pad_token_id=model.config.vocab_size - 1,
        )
    elapsed_s = time.perf_counter() - start_s
    num_tokens = output.shape[0] * (output.shape[1] - args.prompt_tokens)
    return {
        "batch": batch,
        "tokens_per_s": num_tokens / elapsed_s,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


if __name__ == "__main__":
    main()
