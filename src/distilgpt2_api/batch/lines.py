"""The format of lines in batch files: requests, answers and errors.

Source: `BatchRequestInput` and `BatchRequestOutput` of OpenAI's API, and the error codes of its Batch API.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Literal, get_args

import orjson

from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.core.json_members import unique_members

BatchUrl = Literal["/v1/completions", "/v1/chat/completions", "/v1/score"]
"""The routes that a line may name: each takes a JSON body and returns one."""
URLS: tuple[str, ...] = get_args(BatchUrl)
FIELDS = ("custom_id", "method", "url", "body")
MAX_CUSTOM_ID_LENGTH = 512
LINE_FRAME_BYTES = 8192
"""How much longer a line may be than a request's body, for the fields around it."""

INVALID_JSON = "invalid_json_line"
INVALID_REQUEST = "invalid_request"
WRONG_URL = "url_mismatch"
TOO_LONG = "line_too_long"
DUPLICATE_ID = "duplicate_custom_id"
UNKNOWN_MODEL = "model_not_found"


class LineError(InvalidRequestError):
    """An invalid line. The message names neither line nor file.

    `number` counts from 1. `custom_id` is None if it could not be read.
    """

    def __init__(
        self, message: str, *, number: int, code: str, param: str | None = None, custom_id: str | None = None
    ) -> None:
        super().__init__(message, param=param)
        self.number = number
        self.code = code
        self.custom_id = custom_id

    def __reduce__(self) -> tuple[object, ...]:
        """For pickle, which would pass all arguments by position."""
        remade = partial(LineError, number=self.number, code=self.code, param=self.param, custom_id=self.custom_id)
        return remade, self.args


@dataclass(frozen=True, slots=True, kw_only=True)
class InputLine:
    """A valid line: `POST url` with `body`, a JSON object."""

    number: int
    """From 1; blank lines count."""
    custom_id: str
    url: str
    body: bytes
    model: str | None = None
    """The name in `body`, if it is a string."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The HTTP response to a line. `body` is JSON: a completion or an error."""

    status_code: int
    request_id: str
    body: bytes

    @property
    def is_success(self) -> bool:
        return self.status_code == HTTPStatus.OK


def parse_line(content: bytes, *, number: int, urls: Collection[str] = URLS) -> InputLine:
    """Parses a line, with or without its line end. Raises LineError, also for duplicate keys and unknown fields."""
    line = _parse_object(content, number)
    custom_id = _read_custom_id(line, number)

    def refuse(message: str, param: str, code: str = INVALID_REQUEST) -> LineError:
        return LineError(f"{param}: {message}", number=number, code=code, param=param, custom_id=custom_id)

    for name in line:
        if name not in FIELDS:
            raise refuse(f"unknown field; a line has {', '.join(FIELDS)}", name[:100])
    if line.get("method") != "POST":
        raise refuse("must be POST", "method")
    url = line.get("url")
    if not isinstance(url, str) or url not in urls:
        raise refuse(f"must be {' or '.join(urls)}", "url", WRONG_URL)
    body = line.get("body")
    if not isinstance(body, dict):
        raise refuse("must be a JSON object", "body")
    if body.get("stream") not in (None, False):
        raise refuse("a batch can't stream: leave it out", "body.stream")
    model = body.get("model")
    return InputLine(
        number=number,
        custom_id=custom_id,
        url=url,
        body=write_body(body),
        model=model if isinstance(model, str) else None,
    )


def write_body(body: dict[str, object]) -> bytes:
    """The body as JSON. The standard library writes integers of any size, which orjson doesn't."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def answered_line(line_id: str, custom_id: str, answer: Answer) -> bytes:
    """The output line, with its line end, for a response with any status."""
    response = {
        "status_code": answer.status_code,
        "request_id": answer.request_id,
        "body": orjson.Fragment(answer.body),
    }
    return _write({"id": line_id, "custom_id": custom_id, "response": response, "error": None})


def failed_line(
    line_id: str, custom_id: str | None, *, code: str, message: str, number: int | None = None, param: str | None = None
) -> bytes:
    """The output line, with its line end, for a line that was never sent. `number` is the input line's."""
    error = {"code": code, "message": message, "param": param, "line": number}
    return _write({"id": line_id, "custom_id": custom_id, "response": None, "error": error})


def _write(line: dict[str, object]) -> bytes:
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _parse_object(content: bytes, number: int) -> dict[str, object]:
    try:
        text = content.decode()
        # orjson is strict; the standard library reports duplicate keys and keeps integers of any size.
        orjson.loads(content)
        value = json.loads(text, object_pairs_hook=unique_members)
    except UnicodeDecodeError as error:
        raise _unreadable(f"not UTF-8: {error.reason} at byte {error.start}", number) from None
    except RecursionError:
        raise _unreadable("not valid JSON: nested too deeply", number) from None
    except ValueError as error:
        raise _unreadable(f"not valid JSON: {error}", number) from None
    if not isinstance(value, dict):
        raise _unreadable(f"must be an object with {', '.join(FIELDS)}", number)
    return value


def _unreadable(message: str, number: int) -> LineError:
    return LineError(message, number=number, code=INVALID_JSON)


def _read_custom_id(line: dict[str, object], number: int) -> str:
    custom_id = line.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID_LENGTH:
        raise LineError(
            f"custom_id: must be a string of 1 to {MAX_CUSTOM_ID_LENGTH} characters",
            number=number,
            code=INVALID_REQUEST,
            param="custom_id",
        )
    return custom_id
