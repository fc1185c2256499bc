"""Request bodies: limited in size and time, strict JSON, one object without duplicate keys."""

from __future__ import annotations

import asyncio
import json
import re

import orjson
from starlette.requests import ClientDisconnect, Request

from distilgpt2_api.core.errors import InvalidRequestError, OverloadedError
from distilgpt2_api.core.json_members import DuplicateKeyError, unique_members
from distilgpt2_api.server.http.errors import BodyTimeoutError, BodyTooLargeError, MediaTypeError
from distilgpt2_api.server.http.limits import RequestLimits

MAX_STRUCTURE = 1 << 16
"""Most lists, objects and members of one body together. Building them blocks the event loop. (A `logit_bias` of GPT-2's
whole vocabulary has 50 257 members.)"""
TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
INTEGER = re.compile("[0-9]{1,19}")
"""A number in a header or form: ASCII digits without a sign, few enough to convert fast."""
INLINE_BYTES = 1 << 17
"""Longer bodies are parsed on a thread, one at a time: one takes up to 60 ms, and twenty may arrive at once."""
MAX_SAFE_INTEGER = 2.0**53
"""Above it, not every integer has an exact float."""


async def read_json_object(request: Request, limits: RequestLimits, uploads: Uploads) -> dict[str, object]:
    """The body as a dictionary. Raises InvalidRequestError, ClientDisconnect, or OverloadedError (`uploads`)."""
    _check_media_type(request)
    body = await read_body(request, max_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s, uploads=uploads)
    if len(body) <= INLINE_BYTES:
        return parse_json_object(body)
    async with uploads.parsing:
        return await asyncio.to_thread(parse_json_object, body)


def parse_json_object(body: bytes) -> dict[str, object]:
    """Parses strict JSON (RFC 8259): no NaN, no lone surrogates, no byte order mark, no duplicate keys.

    16.0, which some clients send, is the integer 16 (JSON Schema 2020-12, section 4.2.3).
    """
    _check_structure(body)
    try:
        # orjson is strict; the standard library shows duplicate keys and how a number is written.
        orjson.loads(body)
        value = json.loads(body, object_pairs_hook=unique_members, parse_float=_parse_number)
    except DuplicateKeyError as error:
        raise InvalidRequestError(f"the body has the key {error.key!r} twice", param=error.key) from None
    except (orjson.JSONDecodeError, RecursionError, ValueError) as error:
        raise InvalidRequestError(f"the body is not valid JSON: {_reason(error)}") from None
    if not isinstance(value, dict):
        raise InvalidRequestError("the body must be a JSON object")
    return value


def _check_structure(body: bytes) -> None:
    """Counts structural characters outside strings, before anything is parsed."""
    if _count_structure(body) > MAX_STRUCTURE and (count := _count_structure(TEXT.sub(b"", body))) > MAX_STRUCTURE:
        raise InvalidRequestError(
            f"the body has {count} lists, objects and members together; at most {MAX_STRUCTURE} are allowed"
        )


def _count_structure(body: bytes) -> int:
    return body.count(b"[") + body.count(b"{") + body.count(b":")


def _check_media_type(request: Request) -> None:
    declared = request.headers.get("content-type", "application/json")
    media_type = declared.partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise MediaTypeError(
            f"the body must be application/json, not {media_type[:100] or 'nothing'}; "
            "with curl: -H 'Content-Type: application/json'"
        )
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise MediaTypeError(f"compressed bodies are not supported (content-encoding: {encoding[:100]})")


async def read_body(request: Request, *, max_bytes: int, timeout_s: float, uploads: Uploads) -> bytes:
    """The raw body. Raises BodyTooLargeError, BodyTimeoutError, OverloadedError or ClientDisconnect."""
    if declared_length(request) > max_bytes:
        raise _too_large(max_bytes)
    pieces: list[bytes] = []
    num_bytes = 0
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                piece = message.get("body", b"")
                num_bytes += len(piece)
                uploads.add(len(piece))
                if num_bytes > max_bytes:
                    raise _too_large(max_bytes)
                pieces.append(piece)
                if not message.get("more_body", False):
                    _check_delivered(request, num_bytes)
                    return b"".join(pieces)
    except TimeoutError:
        raise BodyTimeoutError(f"the body did not arrive within {timeout_s:g} seconds") from None
    finally:
        uploads.remove(num_bytes)


def declared_length(request: Request) -> int:
    """The `Content-Length`; 0 without a valid one. The received bytes are counted in any case."""
    declared = request.headers.get("content-length", "")
    return int(declared) if INTEGER.fullmatch(declared) else 0


def _check_delivered(request: Request, num_bytes: int) -> None:
    """Refuses a body that bare Uvicorn with httptools left to the protocol that `Upgrade` asks for."""
    is_declared = declared_length(request) > 0 or "transfer-encoding" in request.headers
    if not num_bytes and is_declared and "upgrade" in request.headers:
        raise InvalidRequestError(
            "Upgrade: this server does not read the body of a request with this header; omit the header, or start the "
            "service with distilgpt2-api serve or uvicorn --http h11"
        )


def _too_large(max_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body is longer than {max_bytes} bytes")


def _parse_number(text: str) -> float | int:
    number = float(text)
    return int(number) if number.is_integer() and abs(number) <= MAX_SAFE_INTEGER else number


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


class Uploads:
    """Limits the bytes of all bodies that are being received. For the event loop only."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.num_bytes = 0
        self.parsing = asyncio.Semaphore(1)
        """Held while a long body is parsed."""

    def add(self, num_bytes: int) -> None:
        """Counts received bytes. Raises OverloadedError if they exceed the limit; the caller must still remove them."""
        self.num_bytes += num_bytes
        if self.num_bytes > self._max_bytes:
            raise OverloadedError("the service is overloaded: it is receiving too many large bodies; try again later")

    def remove(self, num_bytes: int) -> None:
        self.num_bytes -= num_bytes
