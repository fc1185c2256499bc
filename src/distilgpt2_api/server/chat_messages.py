"""Messages as clients send them, to those that a chat template reads."""

from __future__ import annotations

from collections.abc import Sequence

from distilgpt2_api.core.errors import InvalidRequestError, UnsupportedParameterError
from distilgpt2_api.server.errors import UnknownParameterError
from distilgpt2_api.server.schemas.chat import ROLES

UNSUPPORTED_ROLES = ("tool", "function")
UNSUPPORTED_FIELDS = (
    *("audio", "annotations", "function_call", "prefix", "reasoning", "reasoning_content", "refusal"),
    *("tool_call_id", "tool_calls", "tools"),
)
"""Clients send the assistant's messages back as they got them, with these null or empty."""

PARTS_SEPARATOR = "\n"
"""Between the texts of one message, as vLLM has it."""


def read_messages(messages: object, *, max_messages: int) -> list[dict[str, str]]:
    """`role`, `content` as one text, and `name` where there is one. Raises InvalidRequestError, which says where."""
    if not isinstance(messages, list) or not messages:
        raise InvalidRequestError("messages must be a list of at least one message", param="messages")
    if len(messages) > max_messages:
        raise InvalidRequestError(f"messages: at most {max_messages} fit this model's context", param="messages")
    return [_read_message(message, f"messages.{index}") for index, message in enumerate(messages)]


def _read_message(message: object, where: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise InvalidRequestError(f"{where} must be an object", param=where)
    for name, value in message.items():
        if name in UNSUPPORTED_FIELDS:
            if value is not None and value != []:
                raise UnsupportedParameterError(f"{where}.{name} is not supported here", param=f"{where}.{name}")
        elif name not in {"role", "content", "name"}:
            raise UnknownParameterError(f"unknown parameter: {name[:100]!r} in {where}", param=f"{where}.{name[:100]}")
    read = {"role": _read_role(message.get("role"), f"{where}.role")}
    read["content"] = _read_content(message.get("content"), f"{where}.content")
    name = message.get("name")
    if name is not None:
        if not isinstance(name, str):
            raise InvalidRequestError(f"{where}.name must be a string", param=f"{where}.name")
        read["name"] = name
    return read


def _read_role(role: object, where: str) -> str:
    if isinstance(role, str) and role in ROLES:
        return role
    if isinstance(role, str) and role in UNSUPPORTED_ROLES:
        raise UnsupportedParameterError(f"{where}: {role!r} is not supported here: the model has no tools", param=where)
    raise InvalidRequestError(f"{where} must be one of {', '.join(ROLES)}", param=where)


def _read_content(content: object, where: str) -> str:
    match content:
        case str():
            return content
        case [_, *_]:
            return PARTS_SEPARATOR.join(_read_parts(content, where))
    raise InvalidRequestError(f"{where} must be a string or a list of text parts", param=where)


def _read_parts(parts: Sequence[object], where: str) -> list[str]:
    texts: list[str] = []
    for index, part in enumerate(parts):
        match part:
            case {"type": "text", "text": str() as text, **others} if not others:
                texts.append(text)
            case {"type": str() as kind} if kind != "text":
                raise UnsupportedParameterError(
                    f"{where}.{index}: parts of type {kind[:100]!r} are not supported here: the model reads text",
                    param=f"{where}.{index}.type",
                )
            case _:
                raise InvalidRequestError(
                    f"{where}.{index} must be a text part: `type` and `text`", param=f"{where}.{index}"
                )
    return texts
