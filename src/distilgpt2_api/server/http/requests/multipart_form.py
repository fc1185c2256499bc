"""Forms as `multipart/form-data` (RFC 7578): small fields are kept, the one file is streamed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.server.http.errors import BodyTimeoutError, BodyTooLargeError, MediaTypeError
from distilgpt2_api.server.http.requests.body import Uploads, declared_length

MAX_FIELDS = 16
MAX_FIELD_BYTES = 4096
MAX_HEADER_BYTES = 4096
"""Limit of one part's headers."""
MAX_BOUNDARY_BYTES = 70
"""By RFC 2046, section 5.1.1."""
MIN_BYTES_PER_S = 16 << 10
"""The slowest upload: the deadline is `body_timeout_s` plus the time that the received bytes take at this rate."""
FILE = "file"


@dataclass(slots=True)
class Part:
    """A part while it is read. Mutable."""

    header_name: bytearray = field(default_factory=bytearray)
    header_value: bytearray = field(default_factory=bytearray)
    name: str | None = None
    filename: str | None = None
    content: bytearray = field(default_factory=bytearray)


class UploadForm:
    """One request's form. Read `pieces()` to the end first, then `fields` and `filename`."""

    def __init__(self, request: Request, *, max_file_bytes: int, timeout_s: float, uploads: Uploads) -> None:
        """Raises MediaTypeError, BodyTooLargeError, InvalidRequestError."""
        kind, options = parse_options_header(request.headers.get("content-type"))
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise MediaTypeError("the body must be multipart/form-data, with a boundary")
        if len(boundary) > MAX_BOUNDARY_BYTES:
            raise InvalidRequestError(
                f"Content-Type: the boundary has {len(boundary)} bytes; at most {MAX_BOUNDARY_BYTES} are allowed"
            )
        self._max_file_bytes = max_file_bytes
        if declared_length(request) > max_file_bytes + MAX_FIELDS * (MAX_FIELD_BYTES + MAX_HEADER_BYTES):
            raise self._too_large()
        self._request = request
        self._timeout_s = timeout_s
        self._uploads = uploads
        self._part = Part()
        self._has_file = False
        self._is_whole = False
        self._new: list[bytes] = []
        """Pieces of the file that are not yielded yet."""
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        """Set once the file's part has begun. None: there is no file."""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._add_header_name,
                "on_header_value": self._add_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._add_content,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    async def pieces(self) -> AsyncIterator[bytes]:
        """The file's content. Raises InvalidRequestError or a subclass for an invalid form, OverloadedError if too many
        bytes are being received, and ClientDisconnect.
        """
        num_bytes = num_file_bytes = 0
        started_s = asyncio.get_running_loop().time()
        is_last = False
        while not is_last:
            deadline_s = started_s + self._timeout_s + num_bytes / MIN_BYTES_PER_S
            try:
                async with asyncio.timeout_at(deadline_s):
                    message = await self._request.receive()
            except TimeoutError:
                raise BodyTimeoutError("the body did not arrive in time") from None
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body = message.get("body", b"")
            num_bytes += len(body)
            is_last = not message.get("more_body", False)
            self._uploads.add(len(body))
            try:
                self._feed(body)
                for piece in self._new:
                    num_file_bytes += len(piece)
                    if num_file_bytes > self._max_file_bytes:
                        raise self._too_large()
                    yield piece
                self._new.clear()
            finally:
                self._uploads.remove(len(body))
        if not self._is_whole:
            raise InvalidRequestError("the form ends before its last boundary")

    def _feed(self, body: bytes) -> None:
        try:
            self._parser.write(body)
        except FormParserError as error:
            raise InvalidRequestError(f"the body is not valid multipart/form-data: {error}") from None

    def _begin_part(self) -> None:
        self._part = Part()

    def _add_header_name(self, content: bytes, start: int, end: int) -> None:
        self._part.header_name += content[start:end]
        self._check_header()

    def _add_header_value(self, content: bytes, start: int, end: int) -> None:
        self._part.header_value += content[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._part.header_name) + len(self._part.header_value) > MAX_HEADER_BYTES:
            raise InvalidRequestError(f"a part's header is longer than {MAX_HEADER_BYTES} bytes")

    def _end_header(self) -> None:
        part = self._part
        if part.header_name.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(part.header_value))
            part.name = options.get(b"name", b"").decode(errors="replace")
            filename = options.get(b"filename")
            part.filename = None if filename is None else filename.decode(errors="replace")
        part.header_name.clear()
        part.header_value.clear()

    def _end_headers(self) -> None:
        part = self._part
        if not part.name:
            raise InvalidRequestError("a part of the form has no name")
        if part.name in self.fields or (part.name == FILE and self._has_file):
            raise InvalidRequestError(f"the form has {part.name[:100]!r} twice", param=part.name[:100])
        if part.name == FILE:
            if part.filename is None:
                raise InvalidRequestError("file: must be a file, with a filename", param=FILE)
            self._has_file = True
            self.filename = part.filename
        elif len(self.fields) == MAX_FIELDS:
            raise InvalidRequestError(f"the form has more than {MAX_FIELDS} fields")

    def _add_content(self, content: bytes, start: int, end: int) -> None:
        if self._part.name == FILE:
            self._new.append(content[start:end])
            return
        self._part.content += content[start:end]
        if len(self._part.content) > MAX_FIELD_BYTES:
            raise InvalidRequestError(f"{self._part.name}: longer than {MAX_FIELD_BYTES} bytes")

    def _end_part(self) -> None:
        part = self._part
        if part.name != FILE:
            assert part.name is not None, "its headers were checked"
            try:
                self.fields[part.name] = part.content.decode()
            except UnicodeDecodeError:
                raise InvalidRequestError(f"{part.name}: must be UTF-8", param=part.name[:100]) from None

    def _end(self) -> None:
        self._is_whole = True

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(f"the file is longer than {self._max_file_bytes} bytes")
