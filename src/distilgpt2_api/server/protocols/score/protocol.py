"""Our own protocol for scores: how likely the model finds given texts."""

from __future__ import annotations

from distilgpt2_api.server.http.protocol import Protocol
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS
from distilgpt2_api.server.protocols.score.route import router
from distilgpt2_api.server.protocols.score.schema import ScoreRequest

SCORE = Protocol(
    routes=router.routes,
    errors=OPENAI_ERRORS,
    bodies=(ScoreRequest,),
    examples={
        "/v1/score": {
            "Texts": {"input": ["The king was glad.", "Glad the was king."]},
            "Continuations": {
                "input": [
                    {"context": "The sky is", "continuation": " blue"},
                    {"context": "The sky is", "continuation": " cheese"},
                ],
                "token_logprobs": True,
            },
        },
    },
)
