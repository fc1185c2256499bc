"""A model folder that holds compiled weights in place of the checkpoint: half its size or less, and quick to start.

The folder serves the one precision that it was compiled for. Container images carry their model so: nothing at run time
could write the cache that `compiled_store` keeps, and the checkpoint would only make the image larger.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from distilgpt2_api.core.config import ModelConfig, Precision
from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.model.weights.checkpoint import is_finite
from distilgpt2_api.model.weights.compiled_file import read_compiled_file
from distilgpt2_api.model.weights.prepared import PreparedWeights
from distilgpt2_api.model.weights.weight_files import find_compiled_file


def read_compiled_model(folder: Path, config: ModelConfig, precision: Precision) -> PreparedWeights | None:
    """The weights compiled for `precision`; None where the folder has none compiled at all.

    Memory-mapped where this process may not write to the file, as in an image: what is installed is replaced, not
    rewritten. Elsewhere read into memory, for a file that changes under its map would change answers, or end us.

    Every name, shape and type is checked against the config, and the checksum, and that all numbers are finite. Raises
    ModelFormatError, or ModelNotFoundError where the folder has weights for another precision and nothing to make these
    from.
    """
    path = find_compiled_file(folder, precision)
    if path is None:
        return None
    weights = read_compiled_file(path, config, precision, is_mapped=not os.access(path, os.W_OK))
    for name, values in weights.tensors.items():
        if values.dtype == np.float32 and not is_finite(values):
            raise ModelFormatError(f"{path}: tensor {name} has values that are NaN or infinite")
    return weights
