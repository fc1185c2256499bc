"""A node with round figures: a step takes 10 ms, plus 1 ms for each further sequence; a prompt token takes 0.1 ms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.capacity.node_curve import DecodeStep, NodeCurve


@pytest.fixture
def build_curve() -> Callable[..., NodeCurve]:
    """`build_curve(num_positions=…)` builds the curve with some fields replaced."""

    def build(**fields: Any) -> NodeCurve:
        steps = (1, 0.010), (11, 0.020), (31, 0.040)
        return NodeCurve(
            **{
                "measured_on": "paper",
                "model": "round",
                "precision": "int8",
                "num_positions": 1024,
                "kv_cache_tokens": 32 * 1000,
                "max_step_tokens": 256,
                "prefill_tokens_per_s": 10_000.0,
                "decode_steps": tuple(DecodeStep(num_sequences=count, step_s=step_s) for count, step_s in steps),
                **fields,
            }
        )

    return build
