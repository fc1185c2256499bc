"""Hugging Face's Text Generation Inference (TGI)."""

from __future__ import annotations

from typing import Any

from distilgpt2_api.server.http.protocol import Protocol
from distilgpt2_api.server.protocols.tgi.errors import TGI_ERRORS
from distilgpt2_api.server.protocols.tgi.route import router
from distilgpt2_api.server.protocols.tgi.schema import TgiRequest, TgiStreamEvent, TgiStreamRequest, TgiWholeRequest

PARAMETERS: dict[str, Any] = {"max_new_tokens": 40, "do_sample": True, "temperature": 0.8, "details": True}
EXAMPLE = {"A text": {"inputs": "Once upon a time there was a", "parameters": PARAMETERS}}

TGI = Protocol(
    routes=router.routes,
    errors=TGI_ERRORS,
    paths=frozenset({"POST /", "/generate", "/generate_stream", "/info"}),
    bodies=(TgiRequest, TgiWholeRequest, TgiStreamRequest, TgiStreamEvent),
    examples={"/": EXAMPLE, "/generate": EXAMPLE, "/generate_stream": EXAMPLE},
    prompt_keys=("inputs",),
)
