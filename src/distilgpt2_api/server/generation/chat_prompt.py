"""Chat messages to the prompt that the model completes."""

import asyncio
from collections.abc import Sequence
from functools import partial

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import ContextLengthError, InvalidRequestError, UnsupportedParameterError
from distilgpt2_api.engine.validation import max_prompt_characters
from distilgpt2_api.server.generation.prompts import EncodedPrompt, encode_texts
from distilgpt2_api.server.generation.text_work import TextEncoder
from distilgpt2_api.server.http.errors import UnknownParameterError
from distilgpt2_api.server.schema.chat_prompt import ROLES, ChatPromptFields
from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

NO_TEMPLATE = (
    "this model has no chat template, so it cannot chat: send a prompt to {path}, or ask the operator to add a "
    "template: chat_template.jinja in the model's folder, chat_template in its tokenizer_config.json, or a file named "
    "by the setting DISTILGPT2_CHAT_TEMPLATE"
)


def require_template(template: ChatTemplate | None, *, instead: str = "/v1/completions") -> ChatTemplate:
    """Raises InvalidRequestError if the model has no chat template. `instead`: the protocol's route for prompts."""
    if template is None:
        raise InvalidRequestError(NO_TEMPLATE.format(path=instead))
    return template


async def encode_chat(
    request: ChatPromptFields,
    *,
    template: ChatTemplate,
    encoder: TextEncoder,
    config: ModelConfig,
) -> EncodedPrompt:
    """Raises InvalidRequestError, which names the message at fault."""
    messages = read_messages(request.messages, max_messages=config.num_positions)
    for index, message in enumerate(messages):
        if "name" in message and not template.uses("name"):
            path = f"messages.{index}.name"
            raise InvalidRequestError(f"{path}: this model's chat template does not use `name`", param=path)
        if message["role"] == "developer" and not template.uses("developer"):
            message["role"] = "system"  # `developer` is OpenAI's newer name for it, which few templates know.
    is_continued = bool(request.continue_final_message)
    if is_continued and request.add_generation_prompt:
        raise InvalidRequestError(
            "continue_final_message cannot be used with add_generation_prompt", param="continue_final_message"
        )
    variables = request.chat_template_kwargs or {}
    template.check_variables(list(variables), param="chat_template_kwargs")
    render = partial(
        template.render,
        messages,
        max_characters=max_prompt_characters(encoder.tokenizer, config),
        has_generation_prompt=request.add_generation_prompt is not False and not is_continued,
        is_continued=is_continued,
        variables=_special_tokens(encoder.tokenizer, config) | variables,
    )
    text = await asyncio.to_thread(render)
    if not text:
        raise InvalidRequestError("messages: the chat template renders to an empty prompt", param="messages")
    try:
        [prompt] = await encode_texts(
            [text],
            encoder=encoder,
            config=config,
            add_special_tokens=bool(request.add_special_tokens),
            param="messages",
        )
    except ContextLengthError:
        raise
    except InvalidRequestError as error:
        raise InvalidRequestError(f"messages: {error}", param="messages") from None
    if len(prompt.token_ids) >= config.num_positions:
        num_tokens = len(prompt.token_ids)
        raise ContextLengthError.exceeding(
            config.num_positions,
            f"{num_tokens + 1} tokens ({num_tokens} in the messages, 1 or more in the completion)",
            shorten="the messages",
            param="messages",
        )
    return prompt


def _special_tokens(tokenizer: Tokenizer, config: ModelConfig) -> dict[str, object]:
    """The special tokens of the model's config, for tokenizers whose files name none."""
    ids = {"bos_token": config.bos_token_id, "eos_token": config.eos_token_id}
    return {
        name: tokenizer.decode([token_id])
        for name, token_id in ids.items()
        if token_id is not None and token_id < tokenizer.vocab_size
    }


UNSUPPORTED_ROLES = ("tool", "function")
UNSUPPORTED_FIELDS = (
    *("audio", "annotations", "function_call", "images", "prefix", "reasoning", "reasoning_content", "refusal"),
    *("thinking", "tool_call_id", "tool_calls", "tool_name", "tools"),
)
"""Clients send the assistant's messages back as they received them, with these null or empty."""

PARTS_SEPARATOR = "\n"
"""Between the texts of one message, as in vLLM."""


def read_messages(messages: object, *, max_messages: int) -> list[dict[str, str]]:
    """`role`, `content` as one text, and `name` if it is set. Raises InvalidRequestError, which names the message."""
    if not isinstance(messages, list) or not messages:
        raise InvalidRequestError("messages must be a list of at least one message", param="messages")
    if len(messages) > max_messages:
        raise InvalidRequestError(
            f"messages has {len(messages)} messages; at most {max_messages} fit this model's context", param="messages"
        )
    return [_read_message(message, f"messages.{index}") for index, message in enumerate(messages)]


def _read_message(message: object, path: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise InvalidRequestError(f"{path} must be an object", param=path)
    for name, value in message.items():
        if name in UNSUPPORTED_FIELDS:
            if value is not None and value != []:
                raise UnsupportedParameterError(f"{path}.{name} is not supported; remove it", param=f"{path}.{name}")
        elif name not in {"role", "content", "name"}:
            raise UnknownParameterError(f"unknown parameter: {name[:100]!r} in {path}", param=f"{path}.{name[:100]}")
    read = {"role": _read_role(message.get("role"), f"{path}.role")}
    read["content"] = _read_content(message.get("content"), f"{path}.content")
    name = message.get("name")
    if name is not None:
        if not isinstance(name, str):
            raise InvalidRequestError(f"{path}.name must be a string", param=f"{path}.name")
        read["name"] = name
    return read


def _read_role(role: object, path: str) -> str:
    if isinstance(role, str) and role in ROLES:
        return role
    if isinstance(role, str) and role in UNSUPPORTED_ROLES:
        raise UnsupportedParameterError(f"{path}: {role!r} is not supported: the model has no tools", param=path)
    raise InvalidRequestError(f"{path} must be one of {', '.join(ROLES)}", param=path)


def _read_content(content: object, path: str) -> str:
    match content:
        case str():
            return content
        case [_, *_]:
            return PARTS_SEPARATOR.join(_read_parts(content, path))
    raise InvalidRequestError(f"{path} must be a string or a list of text parts", param=path)


def _read_parts(parts: Sequence[object], path: str) -> list[str]:
    texts: list[str] = []
    for index, part in enumerate(parts):
        match part:
            case {"type": "text", "text": str() as text, **others} if not others:
                texts.append(text)
            case {"type": str() as kind} if kind != "text":
                raise UnsupportedParameterError(
                    f"{path}.{index}: parts of type {kind[:100]!r} are not supported: the model reads only text",
                    param=f"{path}.{index}.type",
                )
            case _:
                raise InvalidRequestError(
                    f"{path}.{index} must be a text part, with `type` and `text`", param=f"{path}.{index}"
                )
    return texts
