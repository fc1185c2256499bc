"""The line of an error that ends a start, and Gunicorn's lines beside it."""

from __future__ import annotations

import json
import logging

import pytest

from distilgpt2_api.core.errors import Distilgpt2ApiError, ModelNotFoundError, SettingsError
from distilgpt2_api.core.exit_status import EXIT_MODEL, EXIT_SETTINGS
from distilgpt2_api.observability.start_errors import is_not_gunicorns_exit, write_start_error


@pytest.mark.parametrize(
    ("error", "status"),
    [(SettingsError("max_n is 100 % wrong"), EXIT_SETTINGS), (ModelNotFoundError("no folder /nowhere"), EXIT_MODEL)],
)
def test_an_error_is_one_line_in_the_logs_format(
    error: Distilgpt2ApiError, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write_start_error(error, is_json=False) == status
    assert capsys.readouterr().err == f"error: {error}\n"
    assert write_start_error(error, is_json=True) == status
    line = json.loads(capsys.readouterr().err)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": str(error), "level": "error", "logger": "distilgpt2_api"}


@pytest.mark.parametrize(
    ("message", "arguments", "is_kept"),
    [
        ("Worker (pid:%s) exited with code %s.", (7, EXIT_MODEL), False),
        ("Worker (pid:%s) exited with code %s.", (7, EXIT_SETTINGS), False),
        ("Worker (pid:%s) exited with code %s.", (7, 70), True),
        ("Shutting down: %s", ("Master",), False),
        ("Worker exiting (pid: %s)", (7,), False),
        ("Reason: %s", ("Worker failed to boot.",), False),
        ("Reason: %s", ("App failed to load.",), False),
        ("Reason: %s", ("the worker was killed 0.6 s after its start",), True),
        ("Worker (pid:%s) was sent %s! Perhaps out of memory?", (7, "SIGKILL"), True),
        ("Handling signal: %s", ("term",), True),
    ],
)
def test_gunicorns_line_is_left_out_if_a_worker_has_said_why_it_ends(
    message: str, arguments: tuple[object, ...], is_kept: bool
) -> None:
    record = logging.LogRecord("gunicorn.error", logging.ERROR, "", 0, message, arguments, None)
    assert is_not_gunicorns_exit(record) is is_kept
