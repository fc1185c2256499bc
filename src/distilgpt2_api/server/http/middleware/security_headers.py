"""Headers that keep browsers from executing, framing, embedding or caching a response."""

from starlette.types import Message

RawHeader = tuple[bytes, bytes]

ALWAYS: tuple[RawHeader, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    # Keeps other sites from embedding a response. CORS requests (`cors_origins`) are not affected.
    (b"cross-origin-resource-policy", b"same-origin"),
)
UNLESS_SET: tuple[RawHeader, ...] = (
    # A response is data: if a browser renders it as a page, that page can do nothing.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    # Prompts, completions and errors are private. Streams and assets set their own value.
    (b"cache-control", b"no-store"),
)


def add_security_headers(start: Message, *others: RawHeader) -> None:
    """Adds the headers, and `others`, to an `http.response.start` message."""
    headers = start.get("headers", ())
    names = {name for name, _ in headers}
    start["headers"] = [
        *headers,
        *ALWAYS,
        *(header for header in UNLESS_SET if header[0] not in names),
        *others,
    ]
