"""HTTP/1.1 over one raw connection: requests as bytes, answers with the times of their parts, names of endings.

An answer is complete only if its declared length or its last chunk has arrived.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

HOST = "127.0.0.1"
LAST_EVENT = b"data: [DONE]\n\n"
FINISHED = b'"finish_reason":"'
ERROR_EVENT = b'data: {"error":'
FINISH = "finish reason"
ERROR = "error event"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER of 0 seconds: closing sends a reset, and discards unsent data."""


@dataclass(slots=True)
class Answer:
    """An answer. Mutable while it arrives, owned by its connection. Times are of `time.perf_counter`."""

    sent_s: float
    status: int = 0
    """0: no answer arrived."""
    headers: dict[str, str] = field(default_factory=dict)
    head_s: float = 0.0
    body: bytearray = field(default_factory=bytearray)
    chunks_s: list[float] = field(default_factory=list)
    """Arrival time of each piece of a chunked body."""
    is_whole: bool = False

    @property
    def is_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def ttft_s(self) -> float:
        """From the request's sending to the first event."""
        return self.chunks_s[0] - self.sent_s

    @property
    def ending(self) -> str:
        """How it ended: `FINISH` and `ERROR` are a stream's proper ends, `200` a whole answer's."""
        if not self.is_whole:
            return "cut in mid-answer"
        if self.status != 200 or not self.is_stream:
            return str(self.status)
        if FINISHED in self.body and self.body.endswith(LAST_EVENT):
            return FINISH
        return ERROR if ERROR_EVENT in self.body else "ended without a reason"


class Connection:
    """Owns a connection to the server; a context manager that closes it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int, *, source: str = HOST) -> Self:
        """From a loopback address of choice: to the server, each is another client."""
        return cls(*await asyncio.open_connection(HOST, port, local_addr=(source, 0)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def is_ended(self) -> bool:
        """The server has closed its side, and all that it sent has been read."""
        return self._reader.at_eof() or self._writer.is_closing()

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def ask(
        self,
        request: bytes,
        *,
        on_head: Callable[[], object] | None = None,
        on_chunk: Callable[[float], object] | None = None,
    ) -> Answer:
        """Send a request and read its whole answer. Raises OSError; a broken-off answer is returned as it is.

        `on_chunk` gets the arrival time of each piece of a chunked body.
        """
        answer = Answer(time.perf_counter())
        self.send(request)
        try:
            await self._read(answer, on_head, on_chunk)
        except asyncio.IncompleteReadError:
            if not answer.status:
                raise ConnectionResetError("the server closed the connection without an answer") from None
        except OSError:
            if not answer.status:
                raise
        return answer

    async def _read(
        self, answer: Answer, on_head: Callable[[], object] | None, on_chunk: Callable[[float], object] | None
    ) -> None:
        status_line, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        answer.head_s = time.perf_counter()
        answer.status = int(status_line.split()[1])
        answer.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if on_head is not None:
            on_head()
        if answer.headers.get("transfer-encoding") == "chunked":
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                answer.body += (await self._reader.readexactly(size + 2))[:-2]
                answer.chunks_s.append(time.perf_counter())
                if on_chunk is not None:
                    on_chunk(answer.chunks_s[-1])
            await self._reader.readexactly(2)
        else:
            answer.body += await self._reader.readexactly(int(answer.headers.get("content-length", 0)))
        answer.is_whole = True

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        """Close without a farewell, as a client that crashed."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        if sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._writer.transport.abort()


def build_get(path: str, *, key: str | None = None) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: {HOST}\r\n{_authorization(key)}\r\n".encode()


def build_post(path: str, body: dict[str, Any], *, key: str | None = None) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\n{_authorization(key)}"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


def build_completion(prompt: str | list[int] = "once", *, key: str | None = None, **body: Any) -> bytes:
    return build_post("/v1/completions", {"prompt": prompt, "ignore_eos": True, **body}, key=key)


async def ask_once(port: int, request: bytes, *, source: str = HOST, timeout_s: float = 60.0) -> Answer:
    """Send one request on a new connection. Raises OSError, including TimeoutError."""
    async with asyncio.timeout(timeout_s):
        with await Connection.open(port, source=source) as connection:
            return await connection.ask(request)


async def try_once(port: int, request: bytes, *, source: str = HOST, timeout_s: float = 60.0) -> str:
    """Send one request on a new connection; return its ending, or the reason for a missing answer."""
    try:
        return (await ask_once(port, request, source=source, timeout_s=timeout_s)).ending
    except OSError as error:
        return name_failure(error)


def name_failure(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    return "closed without an answer"


def _authorization(key: str | None) -> str:
    return "" if key is None else f"authorization: Bearer {key}\r\n"
