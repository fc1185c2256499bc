"""The bodies of `heavy_requests`: each field of each route at its limit, with the most prompts or completions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Body = dict[str, Any]

VOCAB_SIZE = 3072
"""Vocabulary size of the bundled model."""
CONTEXT = 512
MAX_N = 16
MAX_LOGPROBS = 20
MAX_IDS = 65_536
STOP = [f"{index:02}" + "ab" * 255 for index in range(16)]
"""8192 bytes."""
BAD_WORDS = [f"{index:02}" + "ab" * 15 for index in range(256)]
LONG_TEXT = "ab " * 630_000
UNBROKEN_TEXT = "a" * (1 << 20)
OK = ("200",)
REFUSED = ("400",)
NUM_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Row:
    """Requests that are sent at the same time."""

    name: str
    requests: Sequence[tuple[str, Body | bytes | None]]
    """Path and body: a JSON body, a whole request as bytes, or None for a GET request."""
    endings: Sequence[str] = OK
    """Allowed endings."""
    hang_up_s: float | None = None
    """Seconds after which the clients close their connections, without reading."""


def build_rows(num_prompts: int) -> list[Row]:
    """`num_prompts`: prompts of one request."""
    return [
        *_completion_rows(num_prompts),
        *_chat_rows(),
        *_tgi_rows(),
        *_workshop_rows(),
        *_score_rows(num_prompts),
        *_token_rows(),
        *_batch_rows(),
        *_crowd_rows(num_prompts),
    ]


def _completion_rows(num_prompts: int) -> list[Row]:
    many = ["a"] * num_prompts
    prompt_ids = [[index % 1000 + 1] * 256 for index in range(min(num_prompts, 1000))]

    def row(name: str, fields: Mapping[str, Any], *, prompt: Any = many, max_tokens: int = 4, **options: Any) -> Row:
        body = {"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, **fields}
        return Row(f"completions: {name}", [("/v1/completions", body)], **options)

    some = many[: max(1, num_prompts // MAX_N)]
    all_biases = {str(token_id): 1.0 for token_id in range(VOCAB_SIZE)}
    schema = {"type": "object", "properties": {f"k{index}": {"type": "string"} for index in range(200)}}
    choices = [f"choice {index}" for index in range(4000)]
    return [
        row("plain prompts", {}),
        row("plain prompts, n", {"n": MAX_N}, prompt=some),
        row("stop", {"stop": STOP}),
        row("stop, n", {"stop": STOP, "n": MAX_N}, prompt=some),
        row("stop, past its bound", {"stop": ["ab" * 900] * 16}, endings=REFUSED),
        row("stop of 1.9 MB", {"stop": "ab" * 950_000}, prompt="a", endings=REFUSED),
        row("bad_words", {"bad_words": BAD_WORDS[:240]}),
        row("bad_words, past its bound", {"bad_words": ["ab" * 120] * 256}, endings=REFUSED),
        row("allowed_token_ids", {"allowed_token_ids": [i % VOCAB_SIZE for i in range(MAX_IDS)]}),
        row(
            "allowed_token_ids, 300 000",
            {"allowed_token_ids": [i % VOCAB_SIZE for i in range(300_000)]},
            endings=REFUSED,
        ),
        row("stop_token_ids", {"stop_token_ids": [i % 2000 for i in range(MAX_IDS)], "min_tokens": 3}),
        row("logit_bias", {"logit_bias": all_biases}),
        row("logit_bias, n", {"logit_bias": all_biases, "n": MAX_N}, prompt=some),
        row(
            "penalties, no_repeat_ngram_size, typical_p",
            {
                "repetition_penalty": 1.2,
                "presence_penalty": 1.0,
                "frequency_penalty": 1.0,
                "no_repeat_ngram_size": 3,
                "typical_p": 0.5,
            },
        ),
        row("top_k, top_p, min_p", {"top_k": VOCAB_SIZE - 1, "top_p": 0.99, "min_p": 0.001}),
        row("guided_regex", {"guided_regex": "([a-z]+ ){2,40}"}),
        row("guided_choice", {"guided_choice": choices}),
        row("guided_json", {"guided_json": schema}),
        row("logprobs", {"logprobs": MAX_LOGPROBS}, max_tokens=12),
        row("logprobs, n", {"logprobs": MAX_LOGPROBS, "n": MAX_N}, prompt=some, max_tokens=12),
        row("best_of", {"best_of": MAX_N}, prompt=some),
        row("use_beam_search", {"use_beam_search": True, "best_of": MAX_N, "ignore_eos": False}, prompt=some),
        row("echo with logprobs", {"echo": True, "logprobs": MAX_LOGPROBS}, prompt=prompt_ids[:48], max_tokens=0),
        row("echo with logprobs, past its bound", {"echo": True, "logprobs": 20}, prompt=prompt_ids, endings=REFUSED),
        row("prompt_logprobs", {"prompt_logprobs": MAX_LOGPROBS}, prompt=prompt_ids[:48], max_tokens=1),
        row("prompt as token ids", {"return_token_ids": True, "echo": True}, prompt=prompt_ids, max_tokens=1),
        row("prompt of 600 000 token ids", {}, prompt=[1] * 600_000, endings=REFUSED),
        row("prompt with truncate_prompt_tokens", {"truncate_prompt_tokens": 5}, prompt=LONG_TEXT),
        row("prompts with truncate_prompt_tokens", {"truncate_prompt_tokens": 5}, prompt=["ab " * 600] * num_prompts),
        row("unbroken prompt with truncate_prompt_tokens", {"truncate_prompt_tokens": 5}, prompt=UNBROKEN_TEXT),
        row(
            "stream of many prompts",
            {"stream": True, "logprobs": MAX_LOGPROBS},
            max_tokens=8,
            endings=("finish reason",),
        ),
    ]


def _chat_rows() -> list[Row]:
    def row(name: str, fields: Mapping[str, Any], **options: Any) -> Row:
        messages = [{"role": "user", "content": "a"}]
        body = {"messages": messages, "max_completion_tokens": 64, "ignore_eos": True, "n": MAX_N, **fields}
        return Row(f"chat: {name}", [("/v1/chat/completions", body)], **options)

    return [
        row("stop", {"stop": STOP}),
        row("bad_words", {"bad_words": BAD_WORDS[:240]}),
        row("logit_bias", {"logit_bias": {str(token_id): 1.0 for token_id in range(VOCAB_SIZE)}}),
        row("top_logprobs", {"logprobs": True, "top_logprobs": MAX_LOGPROBS}),
        row("response_format", {"response_format": {"type": "json_object"}}),
        row("many messages", {"messages": [{"role": "user", "content": ""}] * CONTEXT}, endings=("200", "400")),
        row("a long message", {"messages": [{"role": "user", "content": LONG_TEXT}]}, endings=REFUSED),
        row("chat_template_kwargs", {"chat_template_kwargs": {"name": LONG_TEXT}}, endings=("200", "400")),
    ]


def _tgi_rows() -> list[Row]:
    def row(name: str, parameters: Mapping[str, Any], *, inputs: str = "a", **options: Any) -> Row:
        body = {"inputs": inputs, "parameters": {"max_new_tokens": 64, "do_sample": True, **parameters}}
        return Row(f"TGI: {name}", [("/generate", body)], **options)

    return [
        row("stop, best_of", {"stop": STOP, "best_of": MAX_N}),
        row("stop, past its bound", {"stop": ["ab" * 60_000] * 16}, endings=("422",)),
        row("top_n_tokens, best_of", {"top_n_tokens": MAX_LOGPROBS, "best_of": MAX_N, "details": True}),
        row("decoder_input_details", {"decoder_input_details": True}, inputs="a " * 150),
        row("grammar", {"grammar": {"type": "regex", "value": "([a-z]+ ){2,40}"}, "best_of": MAX_N}),
        row("inputs with truncate", {"truncate": 5}, inputs=LONG_TEXT),
    ]


def _workshop_rows() -> list[Row]:
    path = f"/{'a%20' * 80}?num_return_sequences={MAX_N}&max_new_tokens=64&seed=1"
    return [
        Row("workshop: num_return_sequences", [(path, None)]),
        Row("workshop: a long path", [(f"/{'a%20' * 7000}", None)], endings=REFUSED),
    ]


def _score_rows(num_prompts: int) -> list[Row]:
    texts = ["the old king " * 30] * num_prompts
    pairs = [{"context": "the old king " * 60, "continuation": " walked home" * 20}] * num_prompts
    ids = [[index % 1000 + 1] * 256 for index in range(num_prompts)]
    return [
        Row("score: texts", [("/v1/score", {"input": texts, "token_logprobs": True})]),
        Row("score: pairs", [("/v1/score", {"input": pairs})]),
        Row("score: token ids", [("/v1/score", {"input": ids, "token_logprobs": True})]),
    ]


def _token_rows() -> list[Row]:
    long = {"prompt": LONG_TEXT, "return_token_strs": True}
    messages = [{"role": "user", "content": "hi"}] * CONTEXT
    return [
        Row("tokenize: a long text", [("/tokenize", long)]),
        Row("tokenize: an unbroken text", [("/tokenize", {"prompt": UNBROKEN_TEXT, "return_token_strs": True})]),
        Row("tokenize: spaces past the bound", [("/tokenize", {"prompt": " " * 2_000_000})], endings=REFUSED),
        Row("tokenize: messages", [("/tokenize", {"messages": messages})], endings=REFUSED),
        Row("detokenize: 320 000 tokens", [("/detokenize", {"tokens": [0] * 320_000})]),
        Row("detokenize: 600 000 tokens", [("/detokenize", {"tokens": [0] * 600_000})], endings=REFUSED),
    ]


def _batch_rows() -> list[Row]:
    body = {"prompt": ["a"] * 16, "stop": STOP, "bad_words": BAD_WORDS[:240], "max_tokens": 2}
    lines = [
        json.dumps({"custom_id": str(index), "method": "POST", "url": "/v1/completions", "body": body})
        for index in range(100)
    ]
    return [Row("files: an upload", [("/v1/files", _upload("\n".join(lines).encode()))])]


def _upload(content: bytes) -> bytes:
    parts = [b'name="purpose"\r\n\r\nbatch', b'name="file"; filename="lines.jsonl"\r\n\r\n' + content]
    form = (
        b"".join(b"--limit\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--limit--\r\n"
    )
    head = "POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=limit\r\n"
    return f"{head}content-length: {len(form)}\r\n\r\n".encode() + form


def _crowd_rows(num_prompts: int) -> list[Row]:
    """Many requests at once, and clients that disconnect."""
    stop: Body = {"prompt": ["a"] * num_prompts, "stop": STOP, "max_tokens": 50}
    busy = ("200", "429")
    return [
        Row("20 at once: tokenize", [("/tokenize", {"prompt": LONG_TEXT})] * NUM_AT_ONCE, endings=busy),
        Row(
            "20 at once: truncate_prompt_tokens",
            [("/v1/completions", {"prompt": LONG_TEXT, "truncate_prompt_tokens": 5, "max_tokens": 4})] * NUM_AT_ONCE,
            endings=busy,
        ),
        Row("20 at once: detokenize", [("/detokenize", {"tokens": [0] * 320_000})] * NUM_AT_ONCE, endings=busy),
        Row("20 hang up: tokenize", [("/tokenize", {"prompt": LONG_TEXT})] * NUM_AT_ONCE, ("hung up",), 0.2),
        Row("hangs up: stop", [("/v1/completions", stop)], ("hung up",), 0.5),
    ]
