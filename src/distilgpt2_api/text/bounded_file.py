"""Files that come with a model, read whole, but not however large they are."""

from __future__ import annotations

from pathlib import Path

from distilgpt2_api.core.errors import ModelFormatError


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Raises ModelFormatError, in one line that names the file."""
    try:
        if not path.is_file():
            raise ModelFormatError(f"{path}: missing, or not a file")
        if (num_bytes := path.stat().st_size) > max_bytes:
            raise ModelFormatError(f"{path}: has {num_bytes} bytes; more than {max_bytes} are not read")
        return path.read_bytes()
    except OSError as error:
        raise ModelFormatError(f"{path}: {error.strerror}") from None
