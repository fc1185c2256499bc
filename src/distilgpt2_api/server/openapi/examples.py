"""Requests for the OpenAPI document, by path: what `/docs` fills in, and what a reader copies."""

from __future__ import annotations

from typing import Any

STORY = "Once upon a time there was a"
HERO: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TGI_PARAMETERS: dict[str, Any] = {"max_new_tokens": 40, "do_sample": True, "temperature": 0.8, "details": True}

REQUESTS: dict[str, dict[str, dict[str, Any]]] = {
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
    "/v1/chat/completions": {
        "An answer": {"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 40},
        "A stream": {
            "messages": [{"role": "user", "content": "Tell me a story."}],
            "max_tokens": 40,
            "stream": True,
        },
    },
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
    "/v1/batches": {
        "A file's lines": {
            "input_file_id": "file-0123456789abcdef01234567",
            "endpoint": "/v1/completions",
            "completion_window": "24h",
            "metadata": {"project": "stories"},
        }
    },
    "/": {"A text": {"inputs": STORY, "parameters": TGI_PARAMETERS}},
    "/generate": {"A text": {"inputs": STORY, "parameters": TGI_PARAMETERS}},
    "/generate_stream": {"A text": {"inputs": STORY, "parameters": TGI_PARAMETERS}},
    "/tokenize": {"A text": {"prompt": STORY, "return_token_strs": True}},
    "/detokenize": {"Token ids": {"tokens": [72, 105]}},
}
