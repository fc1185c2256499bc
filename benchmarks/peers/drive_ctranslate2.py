"""CTranslate2: `generate_batch()` of a static batch.

    PYTHON -m benchmarks.peers.drive_ctranslate2 MODEL

MODEL is the output of `export_ctranslate2.py`. See `in_process.py`.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctranslate2
from benchmarks.peers.in_process import Prompts, StaticBatch, answer_workloads
from benchmarks.workload import Workload


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    args = parser.parse_args()
    num_cores = len(os.sched_getaffinity(0))
    generator = ctranslate2.Generator(str(args.model), device="cpu", intra_threads=num_cores, inter_threads=1)
    vocabulary = json.loads((args.model / "vocabulary.json").read_text(encoding="utf-8"))

    def generate(prompts: Prompts, workload: Workload, mark: Callable[[], None]) -> None:
        num_left = len(prompts)

        def count(_: Any) -> bool:
            """Called for each token of each sequence; True would end the sequence."""
            nonlocal num_left
            num_left -= 1
            if num_left == 0:
                mark()
                num_left = len(prompts)
            return False

        results = generator.generate_batch(
            [[vocabulary[token_id] for token_id in prompt] for prompt in prompts],
            min_length=workload.num_new_tokens,
            max_length=workload.num_new_tokens,
            sampling_topk=workload.top_k,
            include_prompt_in_result=False,
            end_token=[],
            callback=count,
        )
        assert all(len(result.sequences_ids[0]) == workload.num_new_tokens for result in results)

    answer_workloads(StaticBatch(generate).run, {"ctranslate2": ctranslate2.__version__})


if __name__ == "__main__":
    main()
