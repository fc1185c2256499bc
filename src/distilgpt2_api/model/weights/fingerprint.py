"""Tells whether weights on disk are still the source of a compiled file.

Two stages, so that a start reads megabytes and not gigabytes. `content_key` samples the content, and names the compiled
file. `SourceState` adds modification times; if these differ (a copy, an image layer), a digest of every byte decides.
Both read the open files that the weights are read from, even if their names now belong to other files.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from distilgpt2_api.core.config import ModelConfig, Precision
from distilgpt2_api.model.weights.tensor_file import TensorFile

WHOLE_BYTES = 1 << 24
"""Files up to this size are hashed whole, larger ones by samples."""
NUM_SAMPLES = 64
SAMPLE_BYTES = 1 << 16


def content_key(files: Sequence[TensorFile], config: ModelConfig, precision: Precision, file_format: str) -> str:
    """32 hexadecimal digits. Another config, precision, size, header or retrained content gives another key.

    The config's token ids don't count: they don't change the weights.
    """
    digest = hashlib.sha256(f"{file_format} {precision} ".encode())
    shape = {name: value for name, value in asdict(config).items() if not name.endswith(("_token_id", "_token_ids"))}
    digest.update(json.dumps(shape, sort_keys=True).encode())
    for file in files:
        num_bytes = file.num_bytes
        digest.update(f" {num_bytes} ".encode())
        if num_bytes <= WHOLE_BYTES:
            digest.update(os.pread(file.descriptor, num_bytes, 0))
            continue
        for sample in range(NUM_SAMPLES):  # the first has the start of the header, the last the end of the file
            position = (num_bytes - SAMPLE_BYTES) * sample // (NUM_SAMPLES - 1)
            digest.update(os.pread(file.descriptor, SAMPLE_BYTES, position))
    return digest.hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """The state of a source, as a compiled file stores it."""

    modified_s: tuple[int, ...]
    """Whole seconds, the resolution of archives and image layers."""
    sha256: str

    @classmethod
    def of(cls, files: Sequence[TensorFile]) -> SourceState:
        return cls(modified_s=modification_times(files), sha256=content_digest(files))

    def matches(self, files: Sequence[TensorFile]) -> bool:
        return self.modified_s == modification_times(files) or self.sha256 == content_digest(files)


def modification_times(files: Sequence[TensorFile]) -> tuple[int, ...]:
    return tuple(int(os.fstat(file.descriptor).st_mtime) for file in files)


def content_digest(files: Sequence[TensorFile]) -> str:
    """Digest of all bytes of all files. Read, not mapped: mapped pages would count as this process's memory."""
    digest = hashlib.sha256()
    for source in files:
        with open(source.descriptor, "rb", closefd=False) as file:
            file.seek(0)
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
