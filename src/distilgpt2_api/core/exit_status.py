"""Exit statuses of a server's process."""

from distilgpt2_api.core.errors import Distilgpt2ApiError, ModelError

EXIT_MODEL = 3
"""The model can't be served. Gunicorn stops if a worker exits with 3, instead of starting the next one."""
EXIT_SETTINGS = 4
"""A setting is invalid. Gunicorn stops if a worker exits with 4, too."""
EXIT_ENGINE = 70
"""EX_SOFTWARE of sysexits: a supervisor restarts the process."""


def start_status(error: Distilgpt2ApiError) -> int:
    """The exit status of a server that can't start."""
    return EXIT_MODEL if isinstance(error, ModelError) else EXIT_SETTINGS
