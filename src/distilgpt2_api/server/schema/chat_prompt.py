"""Fields of a request whose prompt is a chat: `/v1/chat/completions` and `/tokenize` share them."""

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from distilgpt2_api.server.schema.validation import Body

ROLES = ("system", "developer", "user", "assistant")

MESSAGES_SCHEMA: dict[str, Any] = {
    "title": "Messages",
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {
            "role": {"type": "string", "enum": list(ROLES)},
            "content": {
                "anyOf": [
                    {"type": "string"},
                    {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["type", "text"],
                            "properties": {"type": {"type": "string", "const": "text"}, "text": {"type": "string"}},
                            "additionalProperties": False,
                        },
                    },
                ]
            },
            "name": {"type": ["string", "null"], "description": "Only if the chat template uses it."},
        },
    },
}

Messages = Annotated[Any, WithJsonSchema(MESSAGES_SCHEMA)]
"""`generation/chat_prompt.py` reads it, and can name the part that is not supported."""


class ChatPromptFields(Body):
    """A chat's messages, and how the model's chat template renders them."""

    messages: Messages
    add_generation_prompt: bool | None = Field(
        None, description="The prompt ends at the beginning of an assistant's message. True by default."
    )
    continue_final_message: bool | None = Field(
        None, description="The last message is left open, and the completion continues it."
    )
    add_special_tokens: bool | None = Field(
        None,
        description="Adds the special tokens that the tokenizer's files want around a text, in addition to those that "
        "the chat template writes. False by default.",
    )
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="Values of the chat template's variables.")
