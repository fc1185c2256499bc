"""Keeps prepared weights on disk, so that a start needs neither to check nor to transpose nor to round them again.

One safetensors file per model and precision, memory-mapped when read: the kernels take their weights from the page
cache. Its name is made of what the content depends on, its metadata tell whether the source is still the same, and a
checksum whether the file itself is. Whatever is wrong with it, it is made anew.
"""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from distilgpt2_api.core.config import ModelConfig, Precision
from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.model.fingerprint import SourceState, content_key
from distilgpt2_api.model.prepared_weights import PreparedWeights, prepare_weights
from distilgpt2_api.model.safetensors_file import SafetensorsFile, write_safetensors
from distilgpt2_api.model.weights import open_checkpoint

FILE_FORMAT = "distilgpt2-api compiled weights 1"
"""Changes whenever the same source would give other bytes."""
READ_BYTES = 1 << 20


def load_weights(
    folder: Path,
    config: ModelConfig,
    *,
    precision: Precision,
    cache_folder: Path | None,
    report: Callable[[str], None],
) -> PreparedWeights:
    """The folder's weights, from the compiled file if there is a good one, else from the source.

    The source's files, names and shapes are checked either way. Raises ModelError for a bad source; a cache folder
    that can't be read or written costs time and one reported line, no more.
    """
    checkpoint = open_checkpoint(folder, config)
    if cache_folder is None:
        return prepare_weights(config, checkpoint, precision)
    key = content_key(checkpoint.paths, config, precision, FILE_FORMAT)
    path = cache_folder / f"{key}.{precision}.safetensors"
    try:
        return _read(path, checkpoint.paths)
    except FileNotFoundError:
        pass
    except (ModelFormatError, OSError) as error:
        report(f"compiled weights are made anew: {error}")
    prepared = prepare_weights(config, checkpoint, precision)
    try:
        _write(path, prepared, SourceState.of(checkpoint.paths))
        return _read(path, checkpoint.paths)  # mapped, so that the arrays' memory goes back
    except (ModelFormatError, OSError) as error:
        report(f"compiled weights can't be kept, so that the next start makes them again: {error}")
        return prepared


def _read(path: Path, source_paths: Sequence[Path]) -> PreparedWeights:
    """Raises FileNotFoundError, OSError, or ModelFormatError where file or source is not what it was."""
    path.stat()  # no file at all: FileNotFoundError, which is no reason for a line
    file = SafetensorsFile(path)
    try:
        state = json.loads(file.metadata["source"])
        source = SourceState(modified_s=tuple(state["modified_s"]), sha256=state["sha256"])
        checksum = int(file.metadata["crc32"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFormatError(f"{path}: no valid metadata") from error
    if _checksum(path, begin=8 + len(file.header_bytes)) != checksum:
        raise ModelFormatError(f"{path}: damaged: the checksum differs")
    if not source.matches(source_paths):
        raise ModelFormatError(f"{path}: the model's weights have changed since")
    return {name: file.view(name) for name in file.spans}


def _write(path: Path, weights: Mapping[str, NDArray[Any]], source: SourceState) -> None:
    """Under another name first: readers see the whole file or none. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.stem}.", delete=False) as file:
        try:
            metadata = {"format": FILE_FORMAT, "source": json.dumps(asdict(source))}
            write_safetensors(file, weights, metadata)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _checksum(path: Path, *, begin: int) -> int:
    """CRC-32 of everything from `begin`: against accidents, not against enemies, who could write the checksum too."""
    checksum = 0
    buffer = memoryview(bytearray(READ_BYTES))
    with path.open("rb", buffering=0) as file:
        file.seek(begin)
        while num_bytes := file.readinto(buffer):
            checksum = zlib.crc32(buffer[:num_bytes], checksum)
    return checksum
