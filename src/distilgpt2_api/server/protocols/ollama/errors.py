"""Ollama's errors: our statuses, and a message alone."""

import orjson

from distilgpt2_api.server.http.error_shape import ErrorShape
from distilgpt2_api.server.http.errors import ErrorAnswer
from distilgpt2_api.server.schema.deferred_model import DeferredModel


class OllamaErrorResponse(DeferredModel):
    """Every status of 400 and above has it on Ollama's routes, and so has the last line of a stream that failed."""

    error: str


def _body(answer: ErrorAnswer) -> bytes:
    """It has no field for the parameter's name, so the message has it."""
    is_named = answer.param is None or answer.param in answer.message
    return orjson.dumps({"error": answer.message if is_named else f"{answer.param}: {answer.message}"})


OLLAMA_ERRORS = ErrorShape(
    name="Ollama",
    model=OllamaErrorResponse,
    descriptions={
        400: "The request is wrong: the message names the parameter.",
        401: "No valid API key.",
        404: "Unknown model or URL.",
        408: "The body did not arrive in time.",
        413: "The body is too long.",
        415: "The body is not declared as JSON.",
        429: "The queue is full, or a limit is reached. `Retry-After` tells when to retry.",
        500: "The completion failed.",
        503: "The model is loading, or the service is shutting down. `Retry-After` tells when to retry.",
        504: "The request did not finish before its deadline.",
    },
    body=_body,
    last_event=lambda answer: _body(answer) + b"\n",
)
