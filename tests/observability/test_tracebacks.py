"""Tracebacks in the log have locations and types, without text of the request."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from distilgpt2_api.observability.logs import FOREIGN_LOGGERS, configure_logging
from distilgpt2_api.observability.tracebacks import describe_exception

PROMPT = "a secret prompt"
EMPTY: dict[str, object] = {}


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("", *FOREIGN_LOGGERS)]
    states = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, handlers, level, propagate in states:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate
    structlog.reset_defaults()


def caught(fail: Callable[[], object]) -> Exception:
    try:
        fail()
    except Exception as error:  # noqa: BLE001 - whatever it raises is looked at
        return error
    raise AssertionError("it did not fail")


def wrap() -> None:
    try:
        EMPTY[PROMPT]
    except KeyError as error:
        error.add_note(PROMPT)
        raise RuntimeError(PROMPT) from error


@pytest.mark.parametrize(
    ("fail", "shown"),
    [
        (lambda: EMPTY[PROMPT], "KeyError"),
        (lambda: int(PROMPT), "ValueError"),
        (f"{PROMPT}\ud800".encode, "UnicodeEncodeError"),
        (lambda: Path(f"/nowhere/{PROMPT}").read_text(), "FileNotFoundError: ENOENT"),
        (lambda: getattr(object(), PROMPT), "AttributeError"),
        (lambda: exec(f"'{PROMPT}' x"), "SyntaxError"),
        (wrap, "RuntimeError"),
    ],
)
def test_an_error_is_logged_by_location_and_type(fail: Callable[[], object], shown: str) -> None:
    text = describe_exception(caught(fail))
    assert text.endswith(shown)
    assert "line " in text
    assert " in caught\n" in text
    assert PROMPT not in text


def test_the_cause_comes_first_and_groups_show_their_parts() -> None:
    assert describe_exception(caught(wrap)).index("KeyError") < describe_exception(caught(wrap)).index("RuntimeError")
    group = ExceptionGroup(PROMPT, [caught(wrap), ValueError(PROMPT)])
    text = describe_exception(group)
    assert "ExceptionGroup" in text
    assert "  | ValueError" in text
    assert PROMPT not in text


def test_a_cyclic_chain_is_cut() -> None:
    first, second = ValueError(), TypeError()
    first.__cause__, second.__cause__ = second, first
    assert describe_exception(first).count("Traceback") == 8


@pytest.mark.parametrize("is_json", [True, False])
@pytest.mark.parametrize("name", ["distilgpt2_api", "uvicorn.error", "gunicorn.error", "asyncio"])
def test_no_logger_shows_a_message(name: str, is_json: bool) -> None:
    stream = io.StringIO()
    configure_logging(level="info", is_json=is_json, stream=stream)
    structlog.stdlib.get_logger(name).error("failed", exc_info=caught(wrap))
    try:
        wrap()
    except RuntimeError:
        logging.getLogger(name).exception("failed")
        structlog.stdlib.get_logger(name).exception("failed")
    text = stream.getvalue()
    assert text.count("KeyError") >= 3
    assert text.count("test_tracebacks.py") >= 3
    assert PROMPT not in text


def test_asyncio_shows_no_task_and_no_argument() -> None:
    """Its lines contain the `repr` of an error, and callbacks with their arguments."""
    stream = io.StringIO()
    configure_logging(level="info", is_json=True, stream=stream)

    async def play() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(int, PROMPT)
        loop.create_future().set_exception(ValueError(PROMPT))
        await asyncio.sleep(0)

    asyncio.run(play())
    text = stream.getvalue()
    assert text.count("ValueError") >= 2
    assert "exception was never retrieved" in text
    assert PROMPT not in text
