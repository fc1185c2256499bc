"""OpenAI's errors, which vLLM's clients, `/v1/score` and the workshop's routes have, too."""

from __future__ import annotations

import orjson
from pydantic import BaseModel

from distilgpt2_api.server.http.error_shape import ErrorShape
from distilgpt2_api.server.http.errors import REFUSALS, ErrorAnswer
from distilgpt2_api.server.http.in_process import InProcessAnswer, Refusal


class Error(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """OpenAI's `ErrorResponse`: every status of 400 and above has it."""

    error: Error


def _body(answer: ErrorAnswer) -> bytes:
    """`Error` of OpenAI's specification: all four keys, `param` and `code` string or null."""
    error = {"message": answer.message, "type": answer.type, "param": answer.param, "code": answer.code}
    return orjson.dumps({"error": error})


OPENAI_ERRORS = ErrorShape(
    name="OpenAI",
    model=ErrorResponse,
    descriptions={
        400: "The request is wrong: `param` names the parameter.",
        401: "No valid API key.",
        404: "No such model, file or batch, or no such URL; or a setting would have to switch it on.",
        408: "The body did not arrive in time.",
        409: "Not in the state that it is in.",
        413: "The body is too long.",
        415: "The body is not declared as JSON.",
        429: "Too much waits already. `Retry-After` says when to come back.",
        500: "The completion failed.",
        503: "The model is loading, or the service is shutting down. `Retry-After` says when to come back.",
        504: "The request was not done before its deadline.",
    },
    body=_body,
    last_event=lambda answer: b"data: " + _body(answer) + b"\n\n",
)


def find_refusal(answer: InProcessAnswer) -> Refusal | None:
    """Why the service can't take the request now. None: it took it."""
    if answer.status not in REFUSALS:
        return None
    error = orjson.loads(answer.body)["error"]
    return Refusal(
        code=error["code"], message=error["message"], retry_after_s=float(answer.headers.get("retry-after", "1"))
    )
