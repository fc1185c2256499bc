"""Caches prepared weights on disk, so that a start need not check, transpose and round them again.

There is one safetensors file per model and precision. It is memory-mapped, so the kernels read weights from the page
cache. This is safe because such a file is never written to, only replaced as a whole. The model's own files may change,
so they are read into memory. The file's name is a hash of all that the content depends on; its metadata tell whether
the source is unchanged, a checksum whether the file itself is. If any check fails, the file is compiled again.
"""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from distilgpt2_api.core.config import ModelConfig, Precision
from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.model.weights.checkpoint import Checkpoint, open_checkpoint
from distilgpt2_api.model.weights.compiled_file import (
    FILE_FORMAT,
    read_compiled_file,
    read_compiled_model,
    write_compiled_file,
)
from distilgpt2_api.model.weights.fingerprint import SourceState, content_key
from distilgpt2_api.model.weights.prepared import PreparedWeights, prepare_weights
from distilgpt2_api.model.weights.tensor_file import TensorFile


def load_weights(
    folder: Path,
    config: ModelConfig,
    *,
    precision: Precision,
    cache_folder: Path | None,
    report: Callable[[str], None],
) -> PreparedWeights:
    """The folder's weights, from the compiled file if there is a valid one, else from the source.

    A compiled folder has no source and needs no cache. For any other folder the source's files,
    names and shapes are always checked. Raises ModelError for a bad source. A cache folder that can't be read or
    written only costs time and one reported line.
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
        pass  # not written yet; if it can't be, writing below reports it
    except (ModelFormatError, OSError) as error:
        report(f"compiling the weights again: {error}")
    prepared = _prepare(config, checkpoint, precision)
    try:
        state = SourceState.of(checkpoint.files)
        checkpoint.check_unchanged()  # else old weights could be cached for the new state
        _write(path, prepared, state)
        return _read(path, config, precision, checkpoint.files)  # mapped, so that the arrays' memory is freed
    except (ModelFormatError, OSError) as error:
        report(f"can't cache the compiled weights, so the next start compiles them again: {error}")
        return prepared


def _prepare(config: ModelConfig, checkpoint: Checkpoint, precision: Precision) -> PreparedWeights:
    prepared = prepare_weights(config, checkpoint, precision)
    checkpoint.check_unchanged()
    return prepared


def _read(path: Path, config: ModelConfig, precision: Precision, source_files: Sequence[TensorFile]) -> PreparedWeights:
    """Raises FileNotFoundError, OSError, or ModelFormatError if file or source has changed."""
    path.stat()  # a missing file is not reported, a bad one is
    weights = read_compiled_file(path, config, precision, is_mapped=True)
    assert weights.file is not None
    try:
        state = json.loads(weights.file.metadata["source"])
        source = SourceState(modified_s=tuple(state["modified_s"]), sha256=state["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFormatError(f"{path}: no valid metadata") from error
    if not source.matches(source_files):
        raise ModelFormatError(f"{path}: the model's weights have changed")
    return weights


def _write(path: Path, weights: PreparedWeights, source: SourceState) -> None:
    """Writes to a temporary name, then renames: readers see the whole file or none. Raises OSError."""
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
