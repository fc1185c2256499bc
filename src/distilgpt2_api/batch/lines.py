"""OpenAI's lines of batch files: what a line asks, what is written for it, what is wrong with it.

Source: `BatchRequestInput` and `BatchRequestOutput` of OpenAI's API; codes of errors as its Batch API has them.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

import orjson

from distilgpt2_api.core.errors import InvalidRequestError

URLS = ("/v1/completions", "/v1/chat/completions", "/v1/score")
"""Routes that take a body of JSON and give one."""
FIELDS = ("custom_id", "method", "url", "body")
MAX_CUSTOM_ID_LENGTH = 512
LINE_FRAME_BYTES = 8192
"""What a line has around its body, at most: it may be so much longer than a request's body."""

INVALID_JSON = "invalid_json_line"
INVALID_REQUEST = "invalid_request"
WRONG_URL = "url_mismatch"
TOO_LONG = "line_too_long"
DUPLICATE_ID = "duplicate_custom_id"
UNKNOWN_MODEL = "model_not_found"


class LineError(InvalidRequestError):
    """A line that asks nothing that can be done. Its message names neither line nor file.

    `number` counts from 1; `custom_id` is the line's, as far as it could be read.
    """

    def __init__(
        self, message: str, *, number: int, code: str, param: str | None = None, custom_id: str | None = None
    ) -> None:
        super().__init__(message, param=param)
        self.number = number
        self.code = code
        self.custom_id = custom_id

    def __reduce__(self) -> tuple[object, ...]:
        """For pickle, which would give all arguments in their order."""
        remade = partial(LineError, number=self.number, code=self.code, param=self.param, custom_id=self.custom_id)
        return remade, self.args


@dataclass(frozen=True, slots=True, kw_only=True)
class InputLine:
    """What a line asks: `body`, a JSON object, is what `POST url` is to be sent."""

    number: int
    """From 1; lines that are blank count too."""
    custom_id: str
    url: str
    body: bytes
    model: str | None = None
    """The name in `body`, where it is a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What HTTP answered: `body` is JSON, of a completion or of an error."""

    status_code: int
    request_id: str
    body: bytes

    @property
    def is_success(self) -> bool:
        return self.status_code == HTTPStatus.OK


def parse_line(content: bytes, *, number: int, urls: Collection[str] = URLS) -> InputLine:
    """`content`: the line, with its end or without. Raises LineError. Strict JSON, no key twice, no field unknown."""
    line = _parse_object(content, number)
    custom_id = _read_custom_id(line, number)

    def refuse(message: str, param: str, code: str = INVALID_REQUEST) -> LineError:
        return LineError(f"{param}: {message}", number=number, code=code, param=param, custom_id=custom_id)

    for name in line:
        if name not in FIELDS:
            raise refuse("a line has no such field", name[:100])
    if line.get("method") != "POST":
        raise refuse("must be POST", "method")
    url = line.get("url")
    if not isinstance(url, str) or url not in urls:
        raise refuse(f"must be {' or '.join(urls)}", "url", WRONG_URL)
    body = line.get("body")
    if not isinstance(body, dict):
        raise refuse("must be an object: the request's body", "body")
    if body.get("stream") not in (None, False):
        raise refuse("an answer in a file is no stream: leave it out", "body.stream")
    model = body.get("model")
    return InputLine(
        number=number,
        custom_id=custom_id,
        url=url,
        body=write_body(body),
        model=model if isinstance(model, str) else None,
    )


def write_body(body: dict[str, object]) -> bytes:
    """As it was read: unlike orjson, the standard library writes integers of any size."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def answered_line(line_id: str, custom_id: str, answer: Answer) -> bytes:
    """The line, its end included, for a request that was answered, whatever the status."""
    response = {
        "status_code": answer.status_code,
        "request_id": answer.request_id,
        "body": orjson.Fragment(answer.body),
    }
    return _write({"id": line_id, "custom_id": custom_id, "response": response, "error": None})


def failed_line(
    line_id: str, custom_id: str | None, *, code: str, message: str, number: int | None = None, param: str | None = None
) -> bytes:
    """The line, its end included, for a request that was never asked. `number` is the input line's."""
    error = {"code": code, "message": message, "param": param, "line": number}
    return _write({"id": line_id, "custom_id": custom_id, "response": None, "error": error})


def _write(line: dict[str, object]) -> bytes:
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _parse_object(content: bytes, number: int) -> dict[str, object]:
    try:
        text = content.decode()
        # orjson is strict; the standard library shows both of two equal keys, and keeps integers of any size.
        orjson.loads(content)
        value = json.loads(text, object_pairs_hook=_check_keys)
    except UnicodeDecodeError as error:
        raise _unreadable(f"not UTF-8: {error.reason} at byte {error.start}", number) from None
    except RecursionError:
        raise _unreadable("not valid JSON: nested too deeply", number) from None
    except ValueError as error:
        raise _unreadable(f"not valid JSON: {error}", number) from None
    if not isinstance(value, dict):
        raise _unreadable(f"must be an object with {', '.join(FIELDS)}", number)
    return value


def _check_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members: dict[str, object] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError(f"the key {name[:100]!r} is there twice")
        members[name] = value
    return members


def _unreadable(message: str, number: int) -> LineError:
    return LineError(message, number=number, code=INVALID_JSON)


def _read_custom_id(line: dict[str, object], number: int) -> str:
    custom_id = line.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID_LENGTH:
        raise LineError(
            f"custom_id: must be a text of 1 to {MAX_CUSTOM_ID_LENGTH} characters",
            number=number,
            code=INVALID_REQUEST,
            param="custom_id",
        )
    return custom_id
