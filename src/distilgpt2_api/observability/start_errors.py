"""Errors that end a server's start: one line each, in the log's format, and none of Gunicorn's beside it."""

import logging
import sys

from distilgpt2_api.core.errors import Distilgpt2ApiError
from distilgpt2_api.core.exit_status import EXIT_MODEL, EXIT_SETTINGS, start_status
from distilgpt2_api.observability.logs import build_formatter

WORKER_EXITED = "Worker (pid:%s) exited with code %s."
REASON = "Reason: %s"
REPEATED_REASONS = ("Worker failed to boot.", "App failed to load.")
ENDINGS = ("Shutting down: %s", "Worker exiting (pid: %s)")
"""Lines of Gunicorn that say less than a worker's own line, or than the next one."""


def write_start_error(error: Distilgpt2ApiError, *, is_json: bool) -> int:
    """Write the error's line to stderr: JSON, or `error: message`. Returns the process's exit status."""
    line = f"error: {error}"
    if is_json:
        record = logging.LogRecord("distilgpt2_api", logging.ERROR, "", 0, str(error), None, None)
        line = build_formatter(is_json=True).format(record)
    sys.stderr.write(f"{line}\n")
    return start_status(error)


def is_not_gunicorns_exit(record: logging.LogRecord) -> bool:
    """A filter of Gunicorn's log: leaves out what it says about the end of a worker that has written its own line."""
    last = record.args[-1] if isinstance(record.args, tuple) and record.args else None
    if record.msg == WORKER_EXITED:
        return last not in (EXIT_MODEL, EXIT_SETTINGS)
    if record.msg == REASON:
        return last not in REPEATED_REASONS
    return record.msg not in ENDINGS
