"""Errors in the log: source lines and types, without messages.

An exception's message contains what the code was working on: a KeyError the key, a decoding error the bytes, a
library's error its arguments. Any of these may be part of a prompt. Source lines and types are enough to find a bug.
"""

import errno
from collections.abc import Iterator
from traceback import FrameSummary, extract_tb

MAX_FRAMES = 60
MAX_LINKS = 8
"""Maximum length of a chain of causes, which can be cyclic."""


def describe_exception(error: BaseException | None) -> str:
    """A traceback like Python's, with the oldest cause first and without messages."""
    return "\n\n".join(reversed([_describe_one(link) for link in _chain(error)]))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(MAX_LINKS):
        if error is None:
            return
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _describe_one(error: BaseException) -> str:
    frames = extract_tb(error.__traceback__)
    lines = ["Traceback (most recent call last):"]
    lines += [_describe_frame(frame) for frame in frames[-MAX_FRAMES:]]
    lines.append(_describe_type(error))
    if isinstance(error, BaseExceptionGroup):
        lines += [f"  | {line}" for part in error.exceptions for line in _describe_one(part).splitlines()]
    return "\n".join(lines)


def _describe_frame(frame: FrameSummary) -> str:
    location = f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}'
    return f"{location}\n    {frame.line}" if frame.line else location


def _describe_type(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(error, OSError) and (word := errno.errorcode.get(error.errno or 0)):
        return f"{name}: {word}"  # the system's error code, without the file's name
    return name
