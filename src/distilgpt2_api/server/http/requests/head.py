"""Heads that are invalid by RFC 9112, and their errors. A head that a proxy may parse differently is refused.

The connection ends with the response, because the end of such a request is unknown.
"""

import re
from collections.abc import Sequence

from starlette.types import Scope

from distilgpt2_api.server.http.errors import INVALID, ErrorAnswer

Headers = Sequence[tuple[bytes, bytes]]

CLOSE_HEADER = (b"connection", b"close")
HTTP_VERSIONS = frozenset({"1.0", "1.1", "2", "3"})
"""Supported versions, as ASGI writes them. Some occur only behind other servers."""
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]*)?")
REQUEST_LINE = re.compile(rb"(?:\r\n)*([!#$%&'*+.^_`|~0-9A-Za-z-]+) \S+ ([A-Z]+/[0-9.]+)\r\n")
OTHER_PROTOCOLS = (b"upgrade", b"http2-settings")


def _refusal(status: int, message: str, *, code: str | None = None) -> ErrorAnswer:
    return ErrorAnswer(status=status, message=message, type=INVALID, code=code, headers={"connection": "close"})


BAD_REQUEST = _refusal(400, "this is not a valid HTTP request")
BAD_VERSION = _refusal(505, "the request line must be METHOD TARGET HTTP/1.1, or HTTP/1.0")
UNKNOWN_METHOD = _refusal(501, "unknown method; use GET, HEAD, POST or DELETE")
TUNNEL = _refusal(501, "CONNECT is not supported: this server is not a proxy")


def too_large(max_bytes: int) -> ErrorAnswer:
    message = f"the request head is longer than {max_bytes} bytes (max_header_bytes); send fewer or shorter headers"
    return _refusal(431, message, code="headers_too_large")


def describe_unparsed(head: bytes) -> ErrorAnswer:
    """Why a parser rejected these bytes, judged by their first line."""
    line = REQUEST_LINE.match(head)
    if line is None:
        return BAD_REQUEST
    if line[2] not in {b"HTTP/1.0", b"HTTP/1.1"}:
        return BAD_VERSION
    return BAD_REQUEST if line[1].decode() in PARSED_METHODS else UNKNOWN_METHOD


PARSED_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
"""The methods of RFC 9110, and PATCH. Another method is itself the error."""


def check_head(scope: Scope) -> ErrorAnswer | None:
    """The error of a head that the server's parser accepted. None if the head is valid.

    Checked here, not in our connection protocol, so that it holds under every server.
    """
    version, headers = scope["http_version"], scope["headers"]
    if version not in HTTP_VERSIONS:
        return BAD_VERSION
    if scope["path"] and not scope["path"].startswith("/"):
        return _refusal(400, "the request target must be a path that begins with a slash")
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (version == "1.1" and not hosts):
        return _refusal(400, f"Host: must be sent once, not {len(hosts)} times")
    if hosts and not HOST.fullmatch(hosts[0].strip()):
        return _refusal(400, "Host: must be a name or an address, optionally with a port")
    return _check_transfer(version, headers)


def _check_transfer(version: str, headers: Headers) -> ErrorAnswer | None:
    encodings = [value for name, value in headers if name == b"transfer-encoding"]
    if not encodings:
        return None
    if version == "1.0":
        return _refusal(400, "Transfer-Encoding: not in HTTP/1.0; send Content-Length")
    if len(encodings) > 1 or encodings[0].strip().lower() != b"chunked":
        return _refusal(501, "Transfer-Encoding: must be chunked; send the body uncompressed")
    if any(name == b"content-length" for name, _ in headers):
        return _refusal(400, "Content-Length: not together with Transfer-Encoding")
    return None


def asks_for_other_protocol(headers: Headers) -> bool:
    """Whether a server may treat what follows the head as another protocol."""
    return any(name == b"upgrade" for name, _ in headers) and any(
        name == b"connection" and b"upgrade" in value.lower() for name, value in headers
    )


def head_without_upgrade(method: bytes, target: bytes, version: str, headers: Headers) -> bytes:
    """The same head without `Upgrade`, which RFC 9110, section 7.8, lets a server ignore.

    The arguments come from a parser, so they contain no line ends.
    """
    lines = [b"%s %s HTTP/%s" % (method, target, version.encode())]
    lines += [name + b": " + value for name, value in headers if name not in OTHER_PROTOCOLS]
    return b"\r\n".join([*lines, b"", b""])
