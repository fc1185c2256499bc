"""A fixed reference for ratios: only the matrix products of one step of a model.

It runs OpenVINO's kernels with int8 weights and one scale per column, as the engine does, and with its own fixed
options. Ratios to it show the cost of our graph, options and Python, on fast and on slow machines.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.model.kernels.openvino_runtime import ops, ov

OPTIONS = {
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_PRECISION_HINT": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "128",
}
MIN_SECONDS = 0.3
NUM_WARM_UP = 3


class ReferenceKernel:
    """Owns the compiled products of a model's shape: of its layers, one after the other, and of its LM head."""

    def __init__(self, config: ModelConfig, num_threads: int) -> None:
        random = np.random.default_rng(0)
        width, inner = config.width, config.inner_width
        hidden = rows = ops.parameter([-1, width], ov.Type.f32)
        for _ in range(config.num_layers):
            qkv = _product(random, hidden, width, 3 * width)
            query, _, _ = ops.split(qkv, ops.constant(np.int64(1)), 3).outputs()
            attended = _product(random, query, width, width)
            hidden = _product(random, _product(random, attended, width, inner), inner, width)
        head_rows = ops.parameter([-1, width], ov.Type.f32)
        logits = _product(random, head_rows, width, config.vocab_size)
        core, options = ov.Core(), OPTIONS | {"INFERENCE_NUM_THREADS": str(num_threads)}
        self._width = width
        self._body = core.compile_model(ov.Model([hidden], [rows], "body"), "CPU", options).create_infer_request()
        self._head = core.compile_model(ov.Model([logits], [head_rows], "head"), "CPU", options).create_infer_request()

    def rows_per_s(self, num_rows: int, *, has_head: bool = True) -> float:
        """Rows per second in the fastest of several steps."""
        rows = np.random.default_rng(1).standard_normal((num_rows, self._width), np.float32)
        times_s: list[float] = []
        while len(times_s) < NUM_WARM_UP + 1 or sum(times_s) < MIN_SECONDS:
            begin_s = time.perf_counter()
            self._body.infer([rows], share_inputs=True, share_outputs=True)
            if has_head:
                self._head.infer([rows], share_inputs=True, share_outputs=True)
            times_s.append(time.perf_counter() - begin_s)
        return num_rows / min(times_s[NUM_WARM_UP:])


def _product(random: np.random.Generator, rows: Any, num_in: int, num_out: int) -> Any:
    values = random.integers(-127, 128, (num_out, num_in), np.int8)
    scales = np.full((num_out, 1), 1 / (127 * num_in**0.5), np.float32)
    weights = ops.multiply(ops.convert(ops.constant(values), "f32"), ops.constant(scales))
    return ops.matmul(rows, weights, False, True)
