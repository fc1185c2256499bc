"""Token embeddings are the rows of the matrix, from memory or from the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distilgpt2_api.core.config import Precision
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.kernels.token_embedding import TokenEmbedding
from distilgpt2_api.model.weights.compiled_cache import load_weights


@pytest.mark.parametrize("has_cache", [False, True])
@pytest.mark.parametrize("precision", Precision)
def test_rows_are_those_of_the_prepared_matrix(
    make_model: Any, tmp_path: Path, precision: Precision, has_cache: bool
) -> None:
    """From memory and from the file: in any order, repeated, or none; bit by bit in float32."""
    model = make_model()
    weights = load_weights(
        model.path,
        read_model_config(model.path),
        precision=precision,
        cache_folder=tmp_path / "cache" if has_cache else None,
        report=pytest.fail,
    )
    assert (weights.file is not None) is has_cache
    embedding = TokenEmbedding(weights)
    matrix = weights.tensors["wte.weight"] * weights.tensors.get("wte.scale", np.float32(1))

    for token_ids in ([7, 0, 130, 7], [], [130]):
        rows = embedding.look_up(np.array(token_ids, np.int64))

        assert rows.dtype == np.float32
        assert rows.flags.c_contiguous
        np.testing.assert_array_equal(rows, matrix[np.array(token_ids, np.int64)])
