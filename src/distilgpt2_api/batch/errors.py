"""Errors that stop a whole batch. An error of one line is a `LineError`."""

from distilgpt2_api.core.errors import Distilgpt2ApiError


class BatchFileError(Distilgpt2ApiError):
    """A file can't be read, locked or written, or has the wrong content. Its content is unchanged."""


class ClusterError(Distilgpt2ApiError):
    """The cluster is missing, or can't continue."""
