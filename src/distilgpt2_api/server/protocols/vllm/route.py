"""`POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`, as in vLLM; the first two also as in llama.cpp."""

from collections.abc import Sequence
from functools import partial

import orjson
from starlette.requests import Request
from starlette.responses import Response

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.server.generation.chat_prompt import encode_chat, require_template
from distilgpt2_api.server.generation.text_work import TextEncoder, encode_bounded
from distilgpt2_api.server.http.requests.body import read_json_object
from distilgpt2_api.server.http.routing.protocol import Protocol
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS
from distilgpt2_api.server.protocols.vllm.schema import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeChatRequest,
    TokenizeContentRequest,
    TokenizeContentResponse,
    TokenizeRequest,
    TokenizeResponse,
    TokenizerInfo,
)
from distilgpt2_api.server.schema.openapi_fragments import json_body
from distilgpt2_api.server.schema.query import checked_router
from distilgpt2_api.server.schema.validation import parse_body
from distilgpt2_api.server.service import ServiceDep
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

MAX_DECODED_BYTES = 4 << 20
"""In one answer: some tokens have a hundred bytes, so two million bytes of ids could be 50 million bytes of text."""
NUM_TOKEN_CHARACTERS = 4
"""Length of a typical token."""


ERRORS = OPENAI_ERRORS.responses(400, 404, 408, 413, 415, 429, 503)

router = checked_router("vLLM")


@router.post(
    "/tokenize",
    response_model=TokenizeResponse | TokenizeContentResponse,
    responses=ERRORS,
    openapi_extra=json_body(TokenizeRequest, TokenizeChatRequest, TokenizeContentRequest),
)
async def tokenize(http: Request, service: ServiceDep) -> Response:
    """Text or chat messages to token ids. Special tokens in the text become their ids."""
    body = await read_json_object(http, service.limits, service.uploads)
    if "content" in body:
        return await _tokenize_content(parse_body(TokenizeContentRequest, body), service.text_encoder(http))
    request = parse_body(TokenizeChatRequest, body) if "messages" in body else parse_body(TokenizeRequest, body)
    service.model.check_name(request.model)
    config, encoder = service.engine.model_config, service.text_encoder(http)
    describe = partial(
        _describe_tokens, tokenizer=encoder.tokenizer, config=config, has_texts=request.return_token_strs
    )
    if isinstance(request, TokenizeChatRequest):
        template = require_template(service.chat_template)
        prompt = await encode_chat(request, template=template, encoder=encoder, config=config)
        return _json(describe(prompt.token_ids))

    def encode_and_describe() -> bytes:
        [token_ids] = encode_bounded(encoder.tokenizer, [request.prompt])
        if request.add_special_tokens is not False:
            token_ids = encoder.tokenizer.with_special_tokens(token_ids)
        return describe(token_ids)

    return _json(await encoder.run(encode_and_describe, num_characters=len(request.prompt)))


@router.post(
    "/detokenize",
    response_model=DetokenizeResponse,
    responses=ERRORS,
    openapi_extra=json_body(DetokenizeRequest),
)
async def detokenize(http: Request, service: ServiceDep) -> Response:
    """Token ids to text, including special tokens. Bytes that are not UTF-8 become U+FFFD."""
    body = await read_json_object(http, service.limits, service.uploads)
    request = parse_body(DetokenizeRequest, body)
    service.model.check_name(request.model)
    encoder = service.text_encoder(http)
    work = partial(_decode, request.tokens, encoder.tokenizer)
    return _json(await encoder.run(work, num_characters=len(request.tokens) * NUM_TOKEN_CHARACTERS))


@router.get("/tokenizer_info", responses=OPENAI_ERRORS.responses(503))
async def tokenizer_info(service: ServiceDep) -> TokenizerInfo:
    """The tokenizer's special tokens and limits."""
    tokenizer, config = service.engine.tokenizer, service.engine.model_config
    end_of_text = _special_token(tokenizer.end_of_text_id(config), tokenizer)

    def token_of(role: str, default: str | None) -> str | None:
        """The token that the tokenizer's files name for the role, else `default`."""
        token_id = tokenizer.role_id(role)
        return default if token_id is None else _special_token(token_id, tokenizer)

    return TokenizerInfo(
        model_max_length=config.num_positions,
        bos_token=token_of("bos_token", _special_token(config.bos_token_id, tokenizer) or end_of_text),
        eos_token=token_of("eos_token", end_of_text),
        unk_token=token_of("unk_token", end_of_text),  # GPT-2's default; a byte-level tokenizer never uses it
        pad_token=token_of("pad_token", None),
        add_bos_token=bool(tokenizer.files.frame.before),
        add_eos_token=bool(tokenizer.files.frame.after),
        add_prefix_space=tokenizer.files.has_prefix_space,
        chat_template=None if service.chat_template is None else service.chat_template.source,
    )


async def _tokenize_content(request: TokenizeContentRequest, encoder: TextEncoder) -> Response:
    tokenizer = encoder.tokenizer

    def encode() -> bytes:
        [token_ids] = encode_bounded(tokenizer, [request.content])
        if request.add_special:
            token_ids = tokenizer.with_special_tokens(token_ids)
        if not request.with_pieces:
            return orjson.dumps({"tokens": token_ids})
        pieces = {token_id: _piece(tokenizer.token_bytes[token_id]) for token_id in set(token_ids)}
        return orjson.dumps({"tokens": [{"id": token_id, "piece": pieces[token_id]} for token_id in token_ids]})

    return _json(await encoder.run(encode, num_characters=len(request.content)))


def _piece(token: bytes) -> str | list[int]:
    try:
        return token.decode()
    except UnicodeDecodeError:
        return list(token)


def _describe_tokens(
    token_ids: Sequence[int], *, tokenizer: Tokenizer, config: ModelConfig, has_texts: bool | None
) -> bytes:
    """A `TokenizeResponse`, without the model: it would take a second and 100 MB for a million tokens."""
    texts = {token_id: tokenizer.token_text(token_id) for token_id in set(token_ids)} if has_texts else {}
    return orjson.dumps(
        {
            "count": len(token_ids),
            "max_model_len": config.num_positions,
            "tokens": token_ids,
            "token_strs": [texts[token_id] for token_id in token_ids] if has_texts else None,
        }
    )


def _decode(token_ids: Sequence[int], tokenizer: Tokenizer) -> bytes:
    """A `DetokenizeResponse`."""
    if token_ids and (min(token_ids) < 0 or max(token_ids) >= tokenizer.vocab_size):
        raise InvalidRequestError(f"tokens: each must be from 0 to {tokenizer.vocab_size - 1}", param="tokens")
    num_bytes = sum(len(tokenizer.token_bytes[token_id]) for token_id in token_ids)
    if num_bytes > MAX_DECODED_BYTES:
        raise InvalidRequestError(
            f"tokens are {num_bytes} bytes of text; at most {MAX_DECODED_BYTES} fit one answer: send fewer tokens",
            param="tokens",
        )
    text = tokenizer.decode(token_ids)
    return orjson.dumps({"prompt": text, "content": text})


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")


def _special_token(token_id: int | None, tokenizer: Tokenizer) -> str | None:
    """The token's text, if `/tokenize` turns it back into this token; else None."""
    if token_id is None or token_id >= tokenizer.vocab_size:
        return None
    text = tokenizer.token_text(token_id)
    return text if tokenizer.encode(text) == [token_id] else None


VLLM = Protocol(
    routes=router.routes,
    errors=OPENAI_ERRORS,
    bodies=(TokenizeRequest, TokenizeChatRequest, TokenizeContentRequest, DetokenizeRequest),
    examples={
        "/tokenize": {"A text": {"prompt": "Once upon a time there was a", "return_token_strs": True}},
        "/detokenize": {"Token ids": {"tokens": [72, 105]}},
    },
)
