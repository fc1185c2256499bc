"""A model folder that holds compiled weights in place of the checkpoint: half its size or less, and quick to start.

The folder serves the one precision that it was compiled for. Container images carry their model so: nothing at run time
could write the cache that `compiled_store` keeps, and the checkpoint would only make the image larger.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from distilgpt2_api.core.config import ModelConfig, Precision
from distilgpt2_api.core.errors import ModelFormatError, ModelNotFoundError
from distilgpt2_api.model.config_file import read_model_config
from distilgpt2_api.model.prepared_weights import (
    CONV1D_SUFFIXES,
    PreparedWeights,
    prepare_weights,
    scale_name,
)
from distilgpt2_api.model.safetensors_file import SafetensorsFile, write_safetensors
from distilgpt2_api.model.weights import expected_shapes, open_checkpoint

FILE_FORMAT = "distilgpt2-api compiled model 1"
"""Changes whenever the same model would give other bytes."""
COMPANIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "README.md",
    "LICENSE",
)
"""Copied where they are there."""
MATRIX_DTYPES = {Precision.INT8: "I8", Precision.BF16: "BF16", Precision.F32: "F32"}


def compile_model(folder: Path, target: Path, precision: Precision) -> None:
    """Writes the model in `folder` to the new folder `target`; the same model gives the same bytes. Raises ModelError."""
    config = read_model_config(folder)
    weights = prepare_weights(config, open_checkpoint(folder, config), precision)
    target.mkdir(parents=True)
    for name in COMPANIONS:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)
    with (target / file_name(precision)).open("wb") as file:
        write_safetensors(file, weights, {"format": FILE_FORMAT})


def read_compiled_model(folder: Path, config: ModelConfig, precision: Precision) -> PreparedWeights | None:
    """The weights compiled for `precision`, memory-mapped; None where the folder has none compiled at all.

    Every name, shape and type is checked against the config, and the checksum. Raises ModelFormatError, or
    ModelNotFoundError where the folder has weights for another precision and nothing to make these from.
    """
    path = folder / file_name(precision)
    if not path.is_file():
        others = [other for other in Precision if (folder / file_name(other)).is_file()]
        if others and not any(folder.glob("model*.safetensors*")):
            raise ModelNotFoundError(
                f"{folder}: compiled for precision {' and '.join(others)}; {precision} needs the checkpoint itself"
            )
        return None
    file = SafetensorsFile(path)
    if file.metadata.get("format") != FILE_FORMAT:
        raise ModelFormatError(f"{path}: not written by this version: compile the model again")
    if not file.is_intact():
        raise ModelFormatError(f"{path}: damaged: the checksum differs")
    expected = _expected_tensors(config, precision)
    found = {name: (span.dtype, span.shape) for name, span in file.spans.items()}
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            raise ModelFormatError(f"{path}: tensor {name} is not what config.json asks for")
    return {name: file.view(name) for name in file.spans}


def _expected_tensors(config: ModelConfig, precision: Precision) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What `prepare_weights` makes of a model of that config: name → type and shape."""
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, shape in expected_shapes(config).items():
        if len(shape) == 1 or name == "wpe.weight":
            tensors[name] = ("F32", shape)
            continue
        num_out, num_in = reversed(shape) if name.endswith(CONV1D_SUFFIXES) else shape
        tensors[name] = (MATRIX_DTYPES[precision], (num_out, num_in))
        if precision is Precision.INT8:
            tensors[scale_name(name)] = ("F32", (num_out, 1))
    return tensors


def file_name(precision: Precision) -> str:
    return f"compiled.{precision}.safetensors"
