"""vLLM's routes beside OpenAI's."""

from __future__ import annotations

from distilgpt2_api.server.http.protocol import Protocol
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS
from distilgpt2_api.server.protocols.vllm.route import router
from distilgpt2_api.server.protocols.vllm.schema import DetokenizeRequest, TokenizeChatRequest, TokenizeRequest

VLLM = Protocol(
    routes=router.routes,
    errors=OPENAI_ERRORS,
    bodies=(TokenizeRequest, TokenizeChatRequest, DetokenizeRequest),
    examples={
        "/tokenize": {"A text": {"prompt": "Once upon a time there was a", "return_token_strs": True}},
        "/detokenize": {"Token ids": {"tokens": [72, 105]}},
    },
)
