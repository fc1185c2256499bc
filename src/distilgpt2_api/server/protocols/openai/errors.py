"""OpenAI's errors, which vLLM's routes, `/v1/score` and the workshop's routes share."""

from collections.abc import Mapping

import orjson

from distilgpt2_api.core.errors import UnavailableError
from distilgpt2_api.server.http.error_shape import DESCRIPTIONS, ErrorShape
from distilgpt2_api.server.http.errors import REFUSALS, ErrorAnswer
from distilgpt2_api.server.http.in_process import InProcessAnswer
from distilgpt2_api.server.schema.deferred_model import DeferredModel


class Error(DeferredModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(DeferredModel):
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
        **DESCRIPTIONS,
        400: "The request is wrong: `param` names the parameter.",
        404: "Unknown model, file, batch or URL, or a feature that is switched off by a setting.",
        409: "Not possible in the current state of the file or batch.",
    },
    body=_body,
    last_event=lambda answer: b"data: " + _body(answer) + b"\n\n",
)


def raise_refusal(answer: InProcessAnswer, final: Mapping[str, type[UnavailableError]]) -> None:
    """Raises UnavailableError if the service can't take the request now, but may later.

    `final`: subclasses for codes of refusals.
    """
    if answer.status in REFUSALS and answer.headers.get("x-should-retry") != "false":
        error = orjson.loads(answer.body)["error"]
        retry_after_s = float(answer.headers.get("retry-after", "1"))
        raise final.get(error["code"], UnavailableError)(error["message"], retry_after_s=retry_after_s)
