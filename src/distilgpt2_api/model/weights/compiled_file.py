"""Reads and writes files of prepared weights: safetensors with metadata.

Such files are in the cache folder (`compiled_cache.py`) and in compiled model folders (`compiled_folder.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO

from distilgpt2_api.core.config import ModelConfig, Precision
from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.core.model_files import safe_name
from distilgpt2_api.model.weights.prepared import PreparedWeights, expected_spans
from distilgpt2_api.model.weights.safetensors_file import SafetensorsFile, write_safetensors

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
    if not file.is_intact():
        raise ModelFormatError(f"{path}: the file is damaged: its checksum differs")
    if is_mapped:
        return PreparedWeights({name: file.view(name) for name in file.spans}, file)
    weights = PreparedWeights({name: file.read(name) for name in file.spans})
    file.check_unchanged()
    return weights


def write_compiled_file(file: IO[bytes], weights: PreparedWeights, metadata: Mapping[str, str]) -> None:
    """Deterministic: the same weights and metadata give the same bytes."""
    write_safetensors(file, weights.tensors, {"format": FILE_FORMAT, **metadata})
