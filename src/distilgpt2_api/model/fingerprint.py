"""Tells whether weights on disk are still the ones that a compiled file was made from.

Two stages, so that a start reads megabytes and not gigabytes: `content_key` samples the content, and names the
compiled file; `SourceState` adds times of modification, and where these differ (a copy, an image layer) a digest of
every byte decides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from distilgpt2_api.core.config import ModelConfig, Precision

WHOLE_BYTES = 1 << 24
"""Files up to this size are hashed whole, larger ones by samples."""
NUM_SAMPLES = 64
SAMPLE_BYTES = 1 << 16


def content_key(paths: Iterable[Path], config: ModelConfig, precision: Precision, file_format: str) -> str:
    """32 hexadecimal digits. Another config, precision, size, header or retrained content gives another key."""
    digest = hashlib.sha256(f"{file_format} {precision} ".encode())
    digest.update(json.dumps(asdict(config), sort_keys=True).encode())
    for path in paths:
        num_bytes = path.stat().st_size
        digest.update(f" {num_bytes} ".encode())
        with path.open("rb") as file:
            if num_bytes <= WHOLE_BYTES:
                digest.update(file.read())
                continue
            for sample in range(NUM_SAMPLES):  # the first holds the header's begin, the last the file's end
                file.seek((num_bytes - SAMPLE_BYTES) * sample // (NUM_SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """What a compiled file remembers of its source."""

    modified_s: tuple[int, ...]
    """Whole seconds, as archives and image layers keep them."""
    sha256: str

    @classmethod
    def of(cls, paths: Iterable[Path]) -> SourceState:
        paths = tuple(paths)
        return cls(modified_s=modification_times(paths), sha256=content_digest(paths))

    def matches(self, paths: Iterable[Path]) -> bool:
        paths = tuple(paths)
        return self.modified_s == modification_times(paths) or self.sha256 == content_digest(paths)


def modification_times(paths: Iterable[Path]) -> tuple[int, ...]:
    return tuple(int(path.stat().st_mtime) for path in paths)


def content_digest(paths: Iterable[Path]) -> str:
    """Of every byte of every file. Read, not mapped: mapped pages would count as this process's memory."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
