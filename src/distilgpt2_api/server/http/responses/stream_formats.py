"""Formats of streamed answers: server-sent events and NDJSON."""

from dataclasses import dataclass

import orjson

LINE_ENDS = ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))
"""Next line, line separator and paragraph separator: in UTF-8, and escaped. JSON escapes all other line ends itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFormat:
    """The headers and keep-alive of a streamed response."""

    content_type: bytes
    ping: bytes | None = None
    """Keeps a quiet connection alive. None: the format has no text that clients ignore."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"content-type", self.content_type),
            (b"cache-control", b"no-cache, no-transform"),
            (b"x-accel-buffering", b"no"),
        ]


SSE = StreamFormat(content_type=b"text/event-stream; charset=utf-8", ping=b": ping\n\n")
"""Server-sent events, as the HTML standard defines them; a line that begins with a colon is a comment."""
NDJSON = StreamFormat(content_type=b"application/x-ndjson")
"""One JSON text per line."""


def dump_line(value: object) -> bytes:
    """JSON on one line, safe for clients that split lines with `str.splitlines`."""
    line = orjson.dumps(value)
    if line.isascii():
        return line
    for character, escape in LINE_ENDS:
        line = line.replace(character, escape)
    return line
