"""Keeps prepared weights on disk, so that a start needs neither to check nor to transpose nor to round them again.

One safetensors file per model and precision, memory-mapped when read: the kernels take their weights from the page
cache. That is safe, for such a file is never written to, only replaced as a whole; the model's own files are someone
else's, so they are read into memory and not mapped. The name is made of what the content depends on, the metadata tell
whether the source is still the same, and a checksum whether the file itself is. Whatever is wrong, it is made anew.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from distilgpt2_api.core.config import ModelConfig, Precision
from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.model.weights.checkpoint import Checkpoint, open_checkpoint
from distilgpt2_api.model.weights.compiled_file import FILE_FORMAT, read_compiled_file, write_compiled_file
from distilgpt2_api.model.weights.compiled_folder import read_compiled_model
from distilgpt2_api.model.weights.fingerprint import SourceState, content_key
from distilgpt2_api.model.weights.prepared import PreparedWeights, prepare_weights
from distilgpt2_api.model.weights.safetensors_file import SafetensorsFile


def load_weights(
    folder: Path,
    config: ModelConfig,
    *,
    precision: Precision,
    cache_folder: Path | None,
    report: Callable[[str], None],
) -> PreparedWeights:
    """The folder's weights, from the compiled file if there is a good one, else from the source.

    A folder that was compiled as a whole (`compiled_model`) has no source and needs no cache. Of any other the source's
    files, names and shapes are checked either way. Raises ModelError for a bad source; a cache folder that can't be
    read or written costs time and one reported line, no more.
    """
    compiled = read_compiled_model(folder, config, precision)
    if compiled is not None:
        return compiled
    checkpoint = open_checkpoint(folder, config)
    if cache_folder is None:
        return _prepare(config, checkpoint, precision)
    key = content_key(checkpoint.files, config, precision, FILE_FORMAT)
    path = cache_folder / f"{key}.{precision}.safetensors"
    try:
        return _read(path, config, precision, checkpoint.files)
    except (FileNotFoundError, NotADirectoryError):
        pass  # nothing there yet, or nothing can be: the writing below says so
    except (ModelFormatError, OSError) as error:
        report(f"compiled weights are made anew: {error}")
    prepared = _prepare(config, checkpoint, precision)
    try:
        state = SourceState.of(checkpoint.files)
        checkpoint.check_unchanged()  # or the weights of one state would be kept as those of another
        _write(path, prepared, state)
        return _read(path, config, precision, checkpoint.files)  # mapped, so that the arrays' memory goes back
    except (ModelFormatError, OSError) as error:
        report(f"compiled weights can't be kept, so that the next start makes them again: {error}")
        return prepared


def _prepare(config: ModelConfig, checkpoint: Checkpoint, precision: Precision) -> PreparedWeights:
    prepared = prepare_weights(config, checkpoint, precision)
    checkpoint.check_unchanged()
    return prepared


def _read(
    path: Path, config: ModelConfig, precision: Precision, source_files: Sequence[SafetensorsFile]
) -> PreparedWeights:
    """Raises FileNotFoundError, OSError, or ModelFormatError where file or source is not what it was."""
    path.stat()  # no file at all is no reason for a line, other than a bad one
    weights = read_compiled_file(path, config, precision, is_mapped=True)
    assert weights.file is not None
    try:
        state = json.loads(weights.file.metadata["source"])
        source = SourceState(modified_s=tuple(state["modified_s"]), sha256=state["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFormatError(f"{path}: no valid metadata") from error
    if not source.matches(source_files):
        raise ModelFormatError(f"{path}: the model's weights have changed since")
    return weights


def _write(path: Path, weights: PreparedWeights, source: SourceState) -> None:
    """Under another name first: readers see the whole file or none. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.stem}.", delete=False) as file:
        try:
            write_compiled_file(file, weights, {"source": json.dumps(asdict(source))})
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
