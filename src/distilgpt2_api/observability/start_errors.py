"""Errors that end a server's start: one line each, in the log's format, and none of Gunicorn's beside it."""

import logging
import sys
from typing import Any

from distilgpt2_api.core.errors import Distilgpt2ApiError
from distilgpt2_api.core.exit_status import EXIT_MODEL, EXIT_SETTINGS, start_status
from distilgpt2_api.observability.logs import build_formatter

GUNICORNS_EXITS = {
    "Worker (pid:%s) exited with code %s.": lambda _pid, code: code in (EXIT_MODEL, EXIT_SETTINGS),
    "Shutting down: %s": lambda _master: True,
    "Reason: %s": lambda reason: reason in ("Worker failed to boot.", "App failed to load."),
    "Worker exiting (pid: %s)": lambda _pid: True,
}
"""Lines of Gunicorn that repeat less clearly what a worker's own line, or the next one, says."""


def write_start_error(error: Distilgpt2ApiError, *, is_json: bool) -> int:
    """Write the error's line to stderr: JSON, or `error: message`. Returns the process's exit status."""
    line = f"error: {error}"
    if is_json:
        record = logging.LogRecord("distilgpt2_api", logging.ERROR, "", 0, str(error), None, None)
        line = build_formatter(is_json=True).format(record)
    sys.stderr.write(f"{line}\n")
    return start_status(error)


def is_not_gunicorns_exit(record: logging.LogRecord) -> bool:
    """A filter of Gunicorn's log: leaves out `GUNICORNS_EXITS`."""
    is_redundant = GUNICORNS_EXITS.get(str(record.msg))
    arguments: Any = record.args or ()
    return is_redundant is None or not is_redundant(*arguments)
