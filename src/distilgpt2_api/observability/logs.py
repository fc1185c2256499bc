"""Log lines on stderr, in one format for ours, Uvicorn's and Gunicorn's."""

import logging
import re
import sys
from typing import TextIO

import structlog
from structlog.typing import ExcInfo, Processor

from distilgpt2_api.observability.tracebacks import describe_exception

FOREIGN_LOGGERS = ("uvicorn", "uvicorn.error", "gunicorn.error")
"""Loggers that have their own handlers and formats, set before the application is imported."""

ACCESS_LOGGERS = ("uvicorn.access", "gunicorn.access")
"""Silenced loggers: they would log a second line per request, with a path that can be a prompt."""


UVICORNS_NOISE = (
    "No supported WebSocket library detected",  # for every request with `Upgrade`; the service has no WebSocket routes
    "Started server process",
    "Waiting for application startup.",
    "Application startup complete.",  # the model loads after that: our own lines say when the service serves
    "Shutting down",
    "Waiting for application shutdown.",
    "Application shutdown complete.",
    "Finished server process",
)
"""Beginnings of Uvicorn's lines that are left out: they say nothing beside ours."""


def configure_logging(*, level: str, is_json: bool, stream: TextIO | None = None) -> None:
    """Send every logger's lines of `level` and above to `stream` (stderr), as JSON or as readable text.

    Only entry points and `engine_preload` call this.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(build_formatter(is_json=is_json, has_colors=stream.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in FOREIGN_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    logging.getLogger("uvicorn.error").addFilter(_is_not_noise)
    for name in ACCESS_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = False
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _shared() -> list[Processor]:
    return [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def build_formatter(*, is_json: bool, has_colors: bool = False) -> logging.Formatter:
    """The formatter of every line. It leaves out messages of exceptions."""
    last: list[Processor]
    if is_json:
        last = [
            structlog.processors.ExceptionRenderer(lambda exc_info: describe_exception(exc_info[1])),
            structlog.processors.JSONRenderer(),
        ]
    else:
        last = [structlog.dev.ConsoleRenderer(colors=has_colors, sort_keys=False, exception_formatter=_write_exception)]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_shared(), structlog.stdlib.ExtraAdder(), _drop_color, _drop_reprs],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )


def _is_not_noise(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(UVICORNS_NOISE)


def _drop_color(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Drop Uvicorn's second copy of each message, which has terminal colours."""
    event.pop("color_message", None)
    return event


def _drop_reprs(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Cut asyncio's lines before tasks and arguments: these can contain the message of an error."""
    if event.get("logger") == "asyncio":
        event["event"] = re.split(r"[\n(<]", str(event["event"]), maxsplit=1)[0]
    return event


def _write_exception(stream: TextIO, exc_info: ExcInfo) -> None:
    stream.write("\n" + describe_exception(exc_info[1]))
