"""A model folder that holds compiled weights in place of the checkpoint: half its size or less, and quick to start.

The folder serves the one precision that it was compiled for. Container images carry their model so: nothing at run time
could write the cache that `compiled_store` keeps, and the checkpoint would only make the image larger.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from distilgpt2_api.core.config import ModelConfig, Precision
from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.core.model_files import has_file, resolve_inside
from distilgpt2_api.core.model_folder import COMPANION_FILES
from distilgpt2_api.model.compiled_file import read_compiled_file, write_compiled_file
from distilgpt2_api.model.config_file import read_model_config
from distilgpt2_api.model.prepared_weights import PreparedWeights, prepare_weights
from distilgpt2_api.model.weight_files import compiled_name, find_compiled_file
from distilgpt2_api.model.weights import is_finite, open_checkpoint


def compile_model(folder: Path, target: Path, precision: Precision) -> None:
    """Writes the model in `folder` to the new folder `target`: the same bytes every time. Raises ModelError."""
    config = read_model_config(folder)
    weights = prepare_weights(config, open_checkpoint(folder, config), precision)
    target.mkdir(parents=True)
    for name in COMPANION_FILES:
        if has_file(folder / name):
            shutil.copyfile(resolve_inside(folder / name), target / name)
    with (target / compiled_name(precision)).open("wb") as file:
        write_compiled_file(file, weights, {})


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
