"""A model folder that holds compiled weights in place of the checkpoint: half its size or less, and quick to start.

The folder serves the one precision that it was compiled for. Container images carry their model so: nothing at run time
could write the cache that `compiled_store` keeps, and the checkpoint would only make the image larger.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from distilgpt2_api.core.config import ModelConfig, Precision
from distilgpt2_api.model.compiled_file import read_compiled_file, write_compiled_file
from distilgpt2_api.model.config_file import read_model_config
from distilgpt2_api.model.prepared_weights import PreparedWeights, prepare_weights
from distilgpt2_api.model.weight_files import compiled_name, find_compiled_file
from distilgpt2_api.model.weights import open_checkpoint

COMPANIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "chat_template.jinja",
    "README.md",
    "LICENSE",
)
"""Copied where they are there."""


def compile_model(folder: Path, target: Path, precision: Precision) -> None:
    """Writes the model in `folder` to the new folder `target`: the same bytes every time. Raises ModelError."""
    config = read_model_config(folder)
    weights = prepare_weights(config, open_checkpoint(folder, config), precision)
    target.mkdir(parents=True)
    for name in COMPANIONS:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)
    with (target / compiled_name(precision)).open("wb") as file:
        write_compiled_file(file, weights, {})


def read_compiled_model(folder: Path, config: ModelConfig, precision: Precision) -> PreparedWeights | None:
    """The weights compiled for `precision`, memory-mapped; None where the folder has none compiled at all.

    Every name, shape and type is checked against the config, and the checksum. Raises ModelFormatError, or
    ModelNotFoundError where the folder has weights for another precision and nothing to make these from.
    """
    path = find_compiled_file(folder, precision)
    return None if path is None else read_compiled_file(path, config, precision)
