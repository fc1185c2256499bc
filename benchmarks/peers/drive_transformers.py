"""transformers on PyTorch: `generate()` of a static batch, as it is usually called.

    PYTHON -m benchmarks.peers.drive_transformers FOLDER --dtype bfloat16

Prompts of different lengths are padded to the left. See `in_process.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from benchmarks.peers.in_process import Prompts, StaticBatch, answer_workloads
from benchmarks.workload import Workload


class Marks(transformers.StoppingCriteria):  # type: ignore[misc]  # untyped, or not installed
    """Calls `mark` after each token; never stops the generation."""

    def __init__(self, mark: Callable[[], None]) -> None:
        self._mark = mark

    def __call__(self, input_ids: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        self._mark()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel.from_pretrained(args.folder, dtype=getattr(torch, args.dtype)).eval()
    end_of_text = model.config.vocab_size - 1

    def generate(prompts: Prompts, workload: Workload, mark: Callable[[], None]) -> None:
        longest = max(map(len, prompts))
        padded = torch.tensor([[end_of_text] * (longest - len(prompt)) + [*prompt] for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode():
            output = model.generate(
                padded,
                attention_mask=mask,
                do_sample=True,
                top_k=workload.top_k,
                min_new_tokens=workload.num_new_tokens,
                max_new_tokens=workload.num_new_tokens,
                pad_token_id=end_of_text,
                stopping_criteria=transformers.StoppingCriteriaList([Marks(mark)]),
            )
        assert output.shape == (len(prompts), longest + workload.num_new_tokens)

    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    answer_workloads(StaticBatch(generate).run, versions)


if __name__ == "__main__":
    main()
