"""The workshop's own protocol: a prompt is a path."""

from __future__ import annotations

from distilgpt2_api.server.http.protocol import Protocol
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS
from distilgpt2_api.server.protocols.workshop.route import router

WORKSHOP = Protocol(routes=router.routes, errors=OPENAI_ERRORS)
