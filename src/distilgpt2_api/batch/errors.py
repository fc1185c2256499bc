"""What stops a batch as a whole. What is wrong with one line alone is a `LineError`."""

from __future__ import annotations

from distilgpt2_api.core.errors import Distilgpt2ApiError


class BatchFileError(Distilgpt2ApiError):
    """A file can't be read, locked or written, or is not what it would have to be. What is in it stays as it is."""


class ClusterError(Distilgpt2ApiError):
    """There is no cluster that could answer, or it can't go on."""
