"""Errors at the start: one line in the log's format and the exit status that docs/operations.md promises; and a log
without stray lines when the service stops or reloads.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import encrypt_key, write_certificate

from distilgpt2_api.core.exit_status import EXIT_MODEL, EXIT_SETTINGS

GUNICORNS_INFO = re.compile(r"\[[^\]]+\] \[\d+\] \[INFO\] ")
"""The master's own lines under bare Gunicorn, whose log format is Gunicorn's."""


def lines_of(server: Any) -> list[dict[str, Any]]:
    """All lines are JSON, except the information of bare Gunicorn's master."""
    return [json.loads(line) for line in server.log.splitlines() if not GUNICORNS_INFO.match(line)]


def errors_of(server: Any) -> list[str]:
    return [line["event"] for line in lines_of(server) if line["level"] not in ("info", "debug")]


@pytest.mark.reported("first hour: serve ended with 1 for a misspelt setting, and Gunicorn added lines of its own")
@pytest.mark.parametrize("kind", ["serve", "gunicorn", "image", "uvicorn"])
def test_a_bad_setting_is_one_line_and_status_4(launch: Callable[..., Any], kind: str) -> None:
    server = launch(kind, max_nn=3)
    assert server.wait_exit() == EXIT_SETTINGS
    assert errors_of(server) == ["unknown setting DISTILGPT2_MAX_NN in the environment; did you mean DISTILGPT2_MAX_N?"]


@pytest.mark.reported("first hour: serve ended with 1 if the model's folder was missing")
@pytest.mark.parametrize("kind", ["serve", "image"])
def test_a_missing_model_is_one_line_and_status_3(launch: Callable[..., Any], kind: str) -> None:
    server = launch(kind, model="/nowhere")
    assert server.wait_exit() == EXIT_MODEL
    assert errors_of(server) == ["no folder /nowhere"]


@pytest.mark.reported("first hour: exit status 3 came with nine lines, 'serving' among them, three of them no JSON")
@pytest.mark.parametrize("kind", ["serve", "gunicorn", "image", "uvicorn"])
def test_a_broken_model_is_one_line_and_status_3(
    launch: Callable[..., Any], model_folder: Path, tmp_path: Path, kind: str
) -> None:
    """It is read after the port is bound. Gunicorn does not start one worker after the other."""
    folder = tmp_path / "broken"
    shutil.copytree(model_folder, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    server = launch(kind, model=folder)
    assert server.wait_exit() == EXIT_MODEL
    (error,) = errors_of(server)
    assert error.startswith(f"can't serve this model: {weights}: truncated")
    assert "serving" not in [line["event"] for line in lines_of(server)]


@pytest.mark.parametrize("kind", ["serve", "gunicorn", "image"])
def test_a_key_of_another_certificate_is_one_line_and_status_4(
    launch: Callable[..., Any], tmp_path: Path, kind: str
) -> None:
    """Before anything loads and, under bare Gunicorn, which knows nothing of our settings, in the worker."""
    certificate, _ = write_certificate(tmp_path)
    _, other = write_certificate(tmp_path, name="other")
    server = launch(kind, ssl_certfile=certificate, ssl_keyfile=other)
    assert server.wait_exit() == EXIT_SETTINGS
    assert errors_of(server) == [f"the key in ssl_keyfile {other} is not that of ssl_certfile {certificate}"]


@pytest.mark.parametrize("fault", ["expired", "missing", "encrypted", "no certificate"])
def test_a_bad_certificate_or_key_is_one_line_and_status_4(
    launch: Callable[..., Any], tmp_path: Path, fault: str
) -> None:
    """tests/settings/test_certificates.py has every text."""
    certificate, key = write_certificate(tmp_path, days=-1 if fault == "expired" else 2)
    match fault:
        case "missing":
            certificate = tmp_path / "nowhere.pem"
        case "encrypted":
            key = encrypt_key(key)
        case "no certificate":
            certificate = key
    server = launch("serve", ssl_certfile=certificate, ssl_keyfile=key)
    assert server.wait_exit() == EXIT_SETTINGS
    (error,) = errors_of(server)
    assert str(key if fault == "encrypted" else certificate) in error


def test_the_console_format_applies_to_errors_of_the_start(launch: Callable[..., Any]) -> None:
    """Even to one about another setting."""
    server = launch("serve", log_format="console", max_n="many")
    assert server.wait_exit() == EXIT_SETTINGS
    assert server.log.startswith("error: DISTILGPT2_MAX_N (environment) can't be 'many'")
    assert server.log.count("\n") == 1


@pytest.mark.reported("first hour: 'Error while closing socket [Errno 9] Bad file descriptor' at every stop or reload")
@pytest.mark.parametrize("kind", ["serve", "image"])
def test_a_stop_and_a_reload_log_what_happens_and_nothing_else(
    launch: Callable[..., Any], wait_until: Callable[..., Any], kind: str
) -> None:
    server = launch(kind)

    def count(event: str) -> int:
        return [line["event"] for line in lines_of(server)].count(event)

    wait_until(lambda: count("serving") == 1, "it serves")
    server.signal(signal.SIGHUP)
    wait_until(lambda: count("serving") == 2, "the new worker serves")
    wait_until(lambda: count("superseded: completing 0 requests") == 1, "the old worker ends")
    server.signal(signal.SIGTERM)
    assert server.wait_exit() == 0
    events = sorted(line["event"] for line in lines_of(server) if line["event"] != "listening")
    assert events == [
        "draining: 0 requests have 4 s to complete",
        "serving",
        "serving",
        "superseded: completing 0 requests",
    ]
    assert errors_of(server) == []
