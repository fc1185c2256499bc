"""Headers that tell browsers to make nothing of an answer that it is not."""

from __future__ import annotations

from starlette.types import Message

RawHeader = tuple[bytes, bytes]

ALWAYS: tuple[RawHeader, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    # Keeps other sites from embedding an answer. What they fetch by `cors_origins`, browsers judge by CORS alone.
    (b"cross-origin-resource-policy", b"same-origin"),
)
UNLESS_SET: tuple[RawHeader, ...] = (
    # An answer is data: should a browser show it as a page after all, that page can do nothing.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    # Prompts, completions and errors are nobody else's, and no cache's. Streams and assets say otherwise themselves.
    (b"cache-control", b"no-store"),
)


def add_security_headers(start: Message, *others: RawHeader) -> None:
    """To an answer's `http.response.start`; `others` are added as well."""
    headers = start.get("headers", ())
    names = {name for name, _ in headers}
    start["headers"] = [
        *headers,
        *ALWAYS,
        *(header for header in UNLESS_SET if header[0] not in names),
        *others,
    ]
