"""Reads and writes files of prepared weights: safetensors with metadata.

Such files are in the cache folder (`compiled_cache.py`) and in compiled model folders, which hold one instead of the
checkpoint and serve only its precision. Container images hold their model in that form: they can't write the cache at
run time, and the checkpoint would make the image larger.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from distilgpt2_api.core.config import ModelConfig, Precision
from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.core.model_files import safe_name
from distilgpt2_api.model.weights.checkpoint import is_finite
from distilgpt2_api.model.weights.prepared import PreparedWeights, expected_spans
from distilgpt2_api.model.weights.safetensors_file import SafetensorsFile, write_safetensors
from distilgpt2_api.model.weights.weight_files import find_compiled_file

FILE_FORMAT = "distilgpt2-api compiled weights 2"
"""Changes if the same model would give other bytes."""


def read_compiled_file(path: Path, config: ModelConfig, precision: Precision, *, is_mapped: bool) -> PreparedWeights:
    """The weights, memory-mapped or in their own memory. Raises ModelFormatError.

    Every name, shape and type is checked against the config, and the content against its checksum.
    """
    file = SafetensorsFile(path)
    if file.metadata.get("format") != FILE_FORMAT:
        raise ModelFormatError(f"{path}: written by another version; compile the model again")
    expected = expected_spans(config, precision)
    found = {name: (span.dtype, span.shape) for name, span in file.spans.items()}
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            raise ModelFormatError(f"{path}: tensor {safe_name(name)} does not match config.json")
    if not file.is_intact(is_mapped=is_mapped):
        raise ModelFormatError(f"{path}: the file is damaged: its checksum differs")
    if is_mapped:
        return PreparedWeights({name: file.view(name) for name in file.spans}, file)
    weights = PreparedWeights({name: file.read(name) for name in file.spans})
    file.check_unchanged()
    return weights


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


def write_compiled_file(file: IO[bytes], weights: PreparedWeights, metadata: Mapping[str, str]) -> None:
    """Deterministic: the same weights and metadata give the same bytes."""
    write_safetensors(file, weights.tensors, {"format": FILE_FORMAT, **metadata})
