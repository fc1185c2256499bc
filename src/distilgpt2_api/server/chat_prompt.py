"""From a chat's messages to the prompt that the model completes."""

from __future__ import annotations

import asyncio
from functools import partial

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import ContextLengthError, InvalidRequestError
from distilgpt2_api.engine.validation import max_prompt_characters
from distilgpt2_api.server.chat_messages import read_messages
from distilgpt2_api.server.prompts import EncodedPrompt, encode_texts
from distilgpt2_api.server.schemas.chat import ChatCompletionRequest
from distilgpt2_api.server.schemas.tokens import TokenizeChatRequest
from distilgpt2_api.server.text_work import TextEncoder
from distilgpt2_api.text.chat_template import ChatTemplate
from distilgpt2_api.text.tokenizer import Tokenizer

NO_TEMPLATE = (
    "this model has no chat template, so it can't chat: send a prompt to /v1/completions, or have the operator give it "
    "one: as chat_template.jinja in the model's folder, as chat_template in its tokenizer_config.json, or as a file "
    "that the setting DISTILGPT2_CHAT_TEMPLATE names"
)


def require_template(template: ChatTemplate | None) -> ChatTemplate:
    """Raises InvalidRequestError, which says what to do."""
    if template is None:
        raise InvalidRequestError(NO_TEMPLATE)
    return template


async def encode_chat(
    request: ChatCompletionRequest | TokenizeChatRequest,
    *,
    template: ChatTemplate,
    encoder: TextEncoder,
    config: ModelConfig,
) -> EncodedPrompt:
    """Raises InvalidRequestError, which names what is wrong with the messages."""
    messages = read_messages(request.messages, max_messages=config.num_positions)
    for index, message in enumerate(messages):
        if "name" in message and not template.uses("name"):
            where = f"messages.{index}.name"
            raise InvalidRequestError(f"{where}: this model's chat template has no use for names", param=where)
        if message["role"] == "developer" and not template.uses("developer"):
            message["role"] = "system"  # OpenAI's newer name of it, which few templates know.
    is_continued = bool(request.continue_final_message)
    if is_continued and request.add_generation_prompt:
        raise InvalidRequestError(
            "continue_final_message: not with add_generation_prompt", param="continue_final_message"
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
        raise InvalidRequestError("messages: the chat template makes an empty text of them", param="messages")
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
    """Where the tokenizer's files name none: those of the model's own config."""
    ids = {"bos_token": config.bos_token_id, "eos_token": config.eos_token_id}
    return {
        name: tokenizer.decode([token_id])
        for name, token_id in ids.items()
        if token_id is not None and token_id < tokenizer.vocab_size
    }
