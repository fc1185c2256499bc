"""Looks token embeddings up outside the graph.

A `gather` in the graph would read the matrix in place and make it resident, page by page: 39 MB for GPT-2's vocabulary
in DistilGPT-2's width, as int8. (The LM head has its own packed copy.) Rows read from the file stay in the system's
page cache, and take 40 µs in a step of 32 rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.model.architectures.gpt2.tensors import EMBEDDING
from distilgpt2_api.model.weights.prepared import PreparedWeights, scale_name


class TokenEmbedding:
    """Maps token ids to rows of the embedding matrix, as float32."""

    def __init__(self, weights: PreparedWeights) -> None:
        self._matrix, self._file = weights.tensors[EMBEDDING], weights.file
        scale = weights.tensors.get(scale_name(EMBEDDING))
        self._scale = None if scale is None else scale.copy()  # (V, 1); copied, so that no mapped page is read

    def look_up(self, token_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """(T,) → (T, C), C-contiguous."""
        rows = self._matrix[token_ids] if self._file is None else self._file.read_rows(EMBEDDING, token_ids.tolist())
        values: NDArray[np.float32] = rows.astype(np.float32)
        if self._scale is not None:
            values *= self._scale[token_ids]
        return values
