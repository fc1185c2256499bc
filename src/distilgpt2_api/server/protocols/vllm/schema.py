"""Bodies of `/tokenize`, `/detokenize` and `/tokenizer_info`, as in vLLM."""

from typing import Literal

from pydantic import Field

from distilgpt2_api.server.schema.chat_prompt import ChatPromptFields
from distilgpt2_api.server.schema.deferred_model import DeferredModel
from distilgpt2_api.server.schema.validation import Body, OnlyTrue


class TokenizeRequest(Body):
    model: str | None = None
    prompt: str
    add_special_tokens: bool | None = Field(
        None, description="Adds the special tokens that the tokenizer's files want around a text. True by default."
    )
    return_token_strs: bool | None = None


class TokenizeChatRequest(ChatPromptFields):
    """A chat's messages, as in `/v1/chat/completions`, for models with a chat template."""

    model: str | None = None
    return_token_strs: bool | None = None


class TokenizeContentRequest(Body):
    """llama.cpp's form."""

    content: str
    add_special: bool | None = Field(
        None, description="Adds the special tokens that the tokenizer's files want around a text. False by default."
    )
    parse_special: OnlyTrue | None = Field(None, description="Special tokens in the text always become their ids.")
    with_pieces: bool | None = Field(None, description="Each token with its text.")


class TokenPiece(DeferredModel):
    id: int
    piece: str | list[int] = Field(description="The token's text or, if it is only a part of a character, its bytes.")


class TokenizeContentResponse(DeferredModel):
    """llama.cpp's answer to `content`."""

    tokens: list[int] | list[TokenPiece]


class TokenizeResponse(DeferredModel):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeRequest(Body):
    model: str | None = None
    tokens: list[int]


class DetokenizeResponse(DeferredModel):
    prompt: str
    content: str = Field(description="The same, by llama.cpp's name.")


class TokenizerInfo(DeferredModel):
    """The fields of a `tokenizer_config.json`, as in vLLM. lm-evaluation-harness reads the special tokens."""

    tokenizer_class: Literal["GPT2Tokenizer"] = "GPT2Tokenizer"
    model_max_length: int
    bos_token: str | None
    eos_token: str | None
    unk_token: str | None
    pad_token: str | None
    add_bos_token: bool = Field(
        description="A prompt gets special tokens before its own, unless the request disables them."
    )
    add_eos_token: bool = Field(
        description="A prompt gets special tokens after its own, unless the request disables them."
    )
    add_prefix_space: bool = Field(description="A text is tokenized as if it began with a space.")
    chat_template: str | None = None
