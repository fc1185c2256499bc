"""OpenAI's protocol: completions, chat, files, batches and models."""

from typing import Any

from distilgpt2_api.server.http.routing.protocol import Protocol
from distilgpt2_api.server.protocols.openai import models
from distilgpt2_api.server.protocols.openai.batches import batches_route, files_route
from distilgpt2_api.server.protocols.openai.batches.batches_schema import BatchRequest
from distilgpt2_api.server.protocols.openai.chat import route as chat_route
from distilgpt2_api.server.protocols.openai.chat.schema import ChatCompletionChunk, ChatCompletionRequest
from distilgpt2_api.server.protocols.openai.completions import route as completions_route
from distilgpt2_api.server.protocols.openai.completions.schema import CompletionRequest
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS

STORY = "Once upon a time there was a"
HERO: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 40}
EXAMPLES: dict[str, dict[str, object]] = {
    "/v1/completions": {
        "A completion": {"prompt": STORY, "max_tokens": 40, "temperature": 0.8},
        "A stream": {"prompt": STORY, "max_tokens": 40, "stream": True, "stream_options": {"include_usage": True}},
        "Log-probabilities of a text": {"prompt": STORY, "max_tokens": 0, "echo": True, "logprobs": 1},
        "JSON of a schema": {
            "prompt": "A hero, as JSON: ",
            "max_tokens": 60,
            "response_format": {"type": "json_schema", "json_schema": {"name": "hero", "schema": HERO}},
        },
        "Beam search": {"prompt": STORY, "max_tokens": 20, "use_beam_search": True, "best_of": 4, "n": 1},
    },
    "/v1/chat/completions": {"An answer": CHAT, "A stream": CHAT | {"stream": True}},
    "/v1/batches": {
        "A file's lines": {
            "input_file_id": "file-0123456789abcdef01234567",
            "endpoint": "/v1/completions",
            "completion_window": "24h",
            "metadata": {"project": "stories"},
        }
    },
}


ROUTERS = [module.router for module in (completions_route, chat_route, files_route, batches_route, models)]

OPENAI = Protocol(
    routes=[route for router in ROUTERS for route in router.routes],
    errors=OPENAI_ERRORS,
    trees=frozenset({"v1"}),
    bodies=(CompletionRequest, ChatCompletionRequest, ChatCompletionChunk, BatchRequest),
    examples=EXAMPLES,
    prompt_keys=("prompt", "messages"),
    operations={"/v1/chat/completions": "chat"},
)
