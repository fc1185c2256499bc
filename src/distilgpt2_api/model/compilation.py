"""Compiles a model folder: writes its weights in the kernels' form, beside the tokenizer's and the config's files."""

import shutil
from pathlib import Path

from distilgpt2_api.core.config import Precision
from distilgpt2_api.core.model_files import has_file, resolve_inside
from distilgpt2_api.core.model_folder import COMPANION_FILES
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.weights.checkpoint import open_checkpoint
from distilgpt2_api.model.weights.compiled_file import write_compiled_file
from distilgpt2_api.model.weights.prepared import prepare_weights
from distilgpt2_api.model.weights.weight_files import compiled_name


def compile_model(folder: Path, target: Path, precision: Precision) -> None:
    """Writes the model in `folder` to the new folder `target`, deterministically. Raises ModelError."""
    config = read_model_config(folder)
    weights = prepare_weights(config, open_checkpoint(folder, config), precision)
    target.mkdir(parents=True)
    copy_companions(folder, target)
    with (target / compiled_name(precision)).open("wb") as file:
        write_compiled_file(file, weights, {})


def copy_companions(folder: Path, target: Path) -> None:
    """Copies the model's files beside the weights, as far as it has them. Raises ModelFormatError."""
    for name in COMPANION_FILES:
        if has_file(folder / name):
            shutil.copyfile(resolve_inside(folder / name), target / name)
