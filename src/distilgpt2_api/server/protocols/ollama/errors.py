"""Ollama's errors: our statuses, and a message alone."""

import orjson

from distilgpt2_api.server.http.error_shape import DESCRIPTIONS, ErrorShape
from distilgpt2_api.server.http.errors import ErrorAnswer
from distilgpt2_api.server.schema.deferred_model import DeferredModel


class OllamaErrorResponse(DeferredModel):
    """Every status of 400 and above has it on Ollama's routes, and so has the last line of a stream that failed."""

    error: str


def _body(answer: ErrorAnswer) -> bytes:
    return orjson.dumps({"error": answer.named_message})


OLLAMA_ERRORS = ErrorShape(
    name="Ollama",
    model=OllamaErrorResponse,
    descriptions=DESCRIPTIONS,
    body=_body,
    last_event=lambda answer: _body(answer) + b"\n",
)
