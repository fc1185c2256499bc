"""OpenVINO GenAI: its continuous batching pipeline, step by step.

    PYTHON -m benchmarks.peers.drive_openvino_genai MODEL

MODEL is the output of `export_openvino.py`. No tokenizer: token ids in, token ids out. See `in_process.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai
from benchmarks.peers.in_process import ContinuousBatch, answer_workloads
from benchmarks.workload import Workload

CACHE_GB = 2
"""64 sequences of 1024 tokens take 1.2 GB in bf16."""


class Pipeline:
    """Owns the pipeline and the handles of its running requests."""

    def __init__(self, model: Path, *, max_num_sequences: int, max_step_tokens: int) -> None:
        options = genai.SchedulerConfig()
        options.max_num_seqs = max_num_sequences
        options.max_num_batched_tokens = max_step_tokens
        options.cache_size = CACHE_GB
        options.dynamic_split_fuse = True
        options.enable_prefix_caching = False
        self._pipeline = genai.ContinuousBatchingPipeline(str(model), options, "CPU")
        self._handles: dict[int, Any] = {}
        self._num_requests = 0

    def add(self, index: int, prompt: Sequence[int], workload: Workload) -> None:
        options = genai.GenerationConfig()
        options.max_new_tokens = workload.num_new_tokens
        options.ignore_eos = True
        options.do_sample = True
        options.top_k = workload.top_k
        options.temperature = 1.0
        token_ids = ov.Tensor(np.array([prompt], np.int64))
        self._num_requests += 1  # ids are never used again
        self._handles[index] = self._pipeline.add_request(self._num_requests, token_ids, options)

    def step(self) -> Mapping[int, tuple[int, bool]]:
        self._pipeline.step()
        pieces = {}
        for index, handle in [*self._handles.items()]:
            if handle.can_read():
                (output,) = handle.read().values()
                is_last = output.finish_reason != genai.GenerationFinishReason.NONE
                pieces[index] = (len(output.generated_ids), is_last)
                if is_last:
                    del self._handles[index]
        return pieces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--max-num-sequences", type=int, default=64)
    parser.add_argument("--max-step-tokens", type=int, default=256)
    args = parser.parse_args()
    pipeline = Pipeline(args.model, max_num_sequences=args.max_num_sequences, max_step_tokens=args.max_step_tokens)
    answer_workloads(ContinuousBatch(pipeline).run, {"openvino_genai": genai.__version__.split("-")[0]})


if __name__ == "__main__":
    main()
