"""Log lines: one format for every logger."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from distilgpt2_api.observability.logs import ACCESS_LOGGERS, FOREIGN_LOGGERS, configure_logging


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Restores the process's logging after each test."""
    loggers = [logging.getLogger(name) for name in ("", *FOREIGN_LOGGERS, *ACCESS_LOGGERS)]
    states = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, handlers, level, propagate in states:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate
    structlog.reset_defaults()


def written(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_are_the_same_for_structlog_and_the_standard_library() -> None:
    stream = io.StringIO()
    configure_logging(level="info", is_json=True, stream=stream)
    structlog.stdlib.get_logger("ours").info("done", tokens=5)
    logging.getLogger("uvicorn.error").info("Started %s", "here", extra={"color_message": "colourful"})
    ours, theirs = written(stream)
    assert ours.pop("timestamp").endswith("Z")
    assert ours == {"event": "done", "tokens": 5, "level": "info", "logger": "ours"}
    assert theirs.pop("timestamp").endswith("Z")
    assert theirs == {"event": "Started here", "level": "info", "logger": "uvicorn.error"}


def test_lines_below_the_level_are_not_written() -> None:
    stream = io.StringIO()
    configure_logging(level="warning", is_json=True, stream=stream)
    structlog.stdlib.get_logger("ours").info("quiet")
    logging.getLogger("gunicorn.error").info("quiet")
    structlog.stdlib.get_logger("ours").warning("loud")
    assert [line["event"] for line in written(stream)] == ["loud"]


def test_access_logs_of_servers_are_silenced() -> None:
    """They would log a second line per request, with a path that can be a prompt."""
    stream = io.StringIO()
    uvicorn_access = logging.getLogger("uvicorn.access")
    uvicorn_access.addHandler(logging.StreamHandler(stream))
    configure_logging(level="debug", is_json=True, stream=stream)
    uvicorn_access.info("GET /my%20secret")
    assert stream.getvalue() == ""
    assert not uvicorn_access.hasHandlers()


@pytest.mark.reported("the log under bare Uvicorn, when a client asks for h2c")
@pytest.mark.parametrize("protocol", [HttpToolsProtocol, H11Protocol])
def test_an_upgrade_request_logs_no_advice_to_install_packages(protocol: Any) -> None:
    """The service has no WebSocket routes."""
    stream = io.StringIO()
    configure_logging(level="info", is_json=True, stream=stream)
    loop = asyncio.new_event_loop()
    config = Config(len, lifespan="off", ws="none", log_config=None)
    protocol(config, ServerState(), {}, loop)._unsupported_upgrade_warning()
    loop.close()
    assert [line["event"] for line in written(stream)] == ["Unsupported upgrade request."]


def test_a_traceback_is_one_json_line() -> None:
    stream = io.StringIO()
    configure_logging(level="info", is_json=True, stream=stream)
    structlog.stdlib.get_logger("ours").error("failed", exc_info=ZeroDivisionError())
    [line] = written(stream)
    assert "ZeroDivisionError" in line["exception"]


def test_readable_lines_have_their_fields_in_the_order_of_the_call() -> None:
    """A request's most important ones come first, its id last."""
    stream = io.StringIO()
    configure_logging(level="info", is_json=False, stream=stream)
    structlog.stdlib.get_logger("distilgpt2_api").info("request", method="GET", route="/", status=200, id="5")
    assert stream.getvalue().endswith(" method=GET route=/ status=200 id=5\n")


def test_readable_lines_in_a_file_have_no_escape_codes() -> None:
    stream = io.StringIO()
    configure_logging(level="info", is_json=False, stream=stream)
    structlog.stdlib.get_logger("ours").info("done", tokens=5)
    assert "done" in stream.getvalue()
    assert "tokens=5" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
