"""Server-sent events as OpenAI's protocol has them."""

from __future__ import annotations

import orjson

from distilgpt2_api.server.http.errors import ErrorAnswer

DONE = b"data: [DONE]\n\n"

LINE_ENDS = ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))
"""Next line, line separator and paragraph separator: in UTF-8, and escaped. Other line ends JSON escapes itself."""


def dump_line(value: object) -> bytes:
    """JSON without the characters that are no line ends in an event stream, but in `str.splitlines` of its readers."""
    line = orjson.dumps(value)
    if line.isascii():
        return line
    for character, escape in LINE_ENDS:
        line = line.replace(character, escape)
    return line


def error_event(answer: ErrorAnswer) -> bytes:
    """The last event of a stream that fails."""
    return b"data: " + answer.openai_body + b"\n\n"
