"""Reads a model folder with compiled weights instead of the checkpoint: at most half its size, and quick to start.

The folder serves only the precision that it was compiled for. Container images hold their model in this form: they
can't write the cache (`compiled_cache.py`) at run time, and the checkpoint would make the image larger.
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
    """The weights compiled for `precision`; None if the folder has no compiled weights.

    The file is memory-mapped if this process may not write to it, as in an image: installed files are replaced, not
    rewritten. Otherwise it is read into memory, because a mapped file that changes would change answers or crash the
    process.

    Checks every name, shape and type against the config, the checksum, and that all numbers are finite. Raises
    ModelFormatError, or ModelNotFoundError if the folder has weights for another precision only, and no checkpoint.
    """
    path = find_compiled_file(folder, precision)
    if path is None:
        return None
    weights = read_compiled_file(path, config, precision, is_mapped=not os.access(path, os.W_OK))
    for name, values in weights.tensors.items():
        if values.dtype == np.float32 and not is_finite(values):
            raise ModelFormatError(f"{path}: tensor {name} has values that are NaN or infinite")
    return weights
