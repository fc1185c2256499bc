"""Converts a checkpoint of PyTorch to safetensors, and merges an adapter into it. Pickles are read, never run."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import ModelError, ModelFormatError, UnsupportedModelError
from distilgpt2_api.core.model_files import has_file
from distilgpt2_api.core.model_folder import CONFIG_FILE
from distilgpt2_api.model.architectures.registry import architecture_of, read_model_config, tensor_specs
from distilgpt2_api.model.compilation import copy_companions
from distilgpt2_api.model.weights.adapter import Adapter, open_adapter
from distilgpt2_api.model.weights.checkpoint import Checkpoint, check_checkpoint, open_checkpoint
from distilgpt2_api.model.weights.panels import to_bf16
from distilgpt2_api.model.weights.pickled_file import PickledFile
from distilgpt2_api.model.weights.safetensors_file import SafetensorsFile, pack_header
from distilgpt2_api.model.weights.tensor_file import TensorFile
from distilgpt2_api.model.weights.weight_files import (
    INDEX_FILE,
    SINGLE_FILE,
    WeightFile,
    find_pickled_files,
)

METADATA = {"format": "pt"}
"""`transformers` requires it."""
LARGEST = {"F16": 65504.0, "BF16": 3.3895314e38}


def convert_model(folder: Path, target: Path, *, weights: Path | None = None, adapter: Path | None = None) -> int:
    """Writes the model in `folder` to the new folder `target`, each tensor in the type that it is stored in. Returns
    the number of tensors.

    `weights`: the file of `folder` to read; None finds it, safetensors first. `adapter`: the folder of an adapter that
    is merged. Names, shapes and values are checked as at a start. Raises ModelError; `target` is then not there.
    """
    if target.exists():
        raise ModelError(f"{target} exists: name a new folder")
    config = read_model_config(folder)
    checkpoint = _open_weights(folder, config, weights)
    checkpoint.check_tied_head()
    merged = None if adapter is None else open_adapter(adapter, config)
    if merged is not None:
        _check_ties(checkpoint, merged, config)
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=target.absolute().parent, prefix=f".{target.name}."))
    except OSError as error:
        raise ModelError(f"{target}: can't be written: {error.strerror}") from None
    try:
        copy_companions(folder, staging)
        num_tensors = _write(staging / SINGLE_FILE, config, checkpoint, merged)
        checkpoint.check_unchanged()
        if merged is not None:
            merged.file.check_unchanged()
        staging.chmod(0o755)
        staging.rename(target)
    except OSError as error:
        raise ModelError(f"{target}: can't be written: {error.strerror}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return num_tensors


def _open_weights(folder: Path, config: ModelConfig, weights: Path | None) -> Checkpoint:
    if weights is None and (has_file(folder / SINGLE_FILE) or has_file(folder / INDEX_FILE)):
        return open_checkpoint(folder, config)
    files = find_pickled_files(folder) if weights is None else [WeightFile(path=weights)]
    if not files:
        return open_checkpoint(folder, config)  # which says what is missing
    return check_checkpoint(folder, config, [(file, _open_file(file.path)) for file in files])


def _open_file(path: Path) -> TensorFile:
    return SafetensorsFile(path) if path.suffix == ".safetensors" else PickledFile(path)


def _check_ties(checkpoint: Checkpoint, adapter: Adapter, config: ModelConfig) -> None:
    """Raises UnsupportedModelError if the adapter changes only one of two tensors that are one in the base model."""
    architecture = architecture_of(config)
    names = (architecture.embedding, architecture.lm_head)
    if not config.has_tied_embeddings or not any(map(adapter.changes, names)):
        return
    embedding = checkpoint.tensor(architecture.embedding)
    changed, head = (adapter.merge(name, embedding) for name in names)
    if not np.array_equal(changed, head):
        raise UnsupportedModelError(
            f"{adapter.file.path}: changes {' or '.join(names)} alone, but {CONFIG_FILE} ties them "
            "(tie_word_embeddings); merge it with PEFT"
        )


def _write(path: Path, config: ModelConfig, checkpoint: Checkpoint, adapter: Adapter | None) -> int:
    specs = tensor_specs(config)
    layout = {name: (checkpoint.dtype(name), spec.shape) for name, spec in specs.items()}
    with path.open("wb") as file:
        file.write(pack_header(layout, METADATA))
        for name in specs:
            values = checkpoint.tensor(name)
            if adapter is not None:
                values = adapter.merge(name, values)
            file.write(_narrow(values, checkpoint.dtype(name), f"{path.name}: {name}").data)
    return len(specs)


def _narrow(values: NDArray[np.float32], dtype: str, where: str) -> NDArray[Any]:
    """Values that were not changed become the stored bits again."""
    if dtype == "F32":
        return values
    if max(values.max(), -values.min()) > LARGEST[dtype]:
        raise ModelFormatError(f"{where} exceeds the range of {dtype}, in which the base model is stored")
    return to_bf16(values) if dtype == "BF16" else values.astype(np.float16)
