"""The KV cache in the benchmark of the bare forward pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.forward import decode_row, load_filled, time_steps
from tests.e2e.conftest import write_model

from distilgpt2_api.core.config import Precision


def cache_arrays(forward_pass: Any, num_blocks: int) -> list[np.ndarray[Any, Any]]:
    """Keys and values of every layer: (blocks, bytes)."""
    layers = forward_pass._cache.reshape(forward_pass._config.num_layers, num_blocks, -1)
    return list(layers)


@pytest.mark.reported("reading the code: at long contexts attention was timed on one hot page of zeros")
@pytest.mark.parametrize("precision", [Precision.INT8, Precision.F32])
def test_every_block_of_the_cache_is_computed_before_anything_is_timed(precision: Precision, tmp_path: Path) -> None:
    """Each block has its own values, in its own pages."""
    num_blocks = 37  # more than one step fills, and not a multiple
    forward_pass = load_filled(
        write_model(tmp_path, num_positions=80),
        precision=precision,
        num_threads=1,
        num_blocks=num_blocks,
        cache_folder=None,
    )

    arrays = cache_arrays(forward_pass, num_blocks)

    assert arrays
    for array in arrays:
        assert len(array) == num_blocks
        assert all(np.count_nonzero(block) > block.size // 2 for block in array)
        assert len(np.unique(array, axis=0)) > num_blocks // 2

    assert len(time_steps(forward_pass, [decode_row(0, 80, 3)], 0.01)) > 0
