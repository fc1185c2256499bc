"""An invalid request gets a typed 4xx that names the parameter, and nothing else breaks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate

Json = dict[str, Any]
JSON = {"content-type": "application/json"}


def error_of(answer: Any, status: int = 400) -> Json:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body.keys() == {"error"}
    error: Json = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert all(isinstance(error[name], str) for name in ("message", "type"))
    assert all(error[name] is None or isinstance(error[name], str) for name in ("param", "code"))
    return error


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [""]}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": {"text": "a"}}, "prompt"),
        ({"prompt": [1.5]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [None]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [257]}, "prompt"),
        ({"prompt": [10**30]}, "prompt"),
        ({"prompt": [[1], [10**12]]}, "prompt"),
        ({"prompt": ["a"] * 9}, "prompt"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": 5.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"min_tokens": 17}, "min_tokens"),
        ({"n": 0}, "n"),
        ({"n": 5}, "n"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": -1}, "min_p"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": "high"}, "frequency_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"logit_bias": {"5": 1, "05": 2}}, "logit_bias"),
        ({"logit_bias": {"257": 1}}, "logit_bias"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": 5}, "stop"),
        ({"stop_token_ids": [257]}, "stop_token_ids"),
        ({"stop_token_ids": ["1"]}, "stop_token_ids"),
        ({"typical_p": 0}, "typical_p"),
        ({"typical_p": 1.1}, "typical_p"),
        ({"bad_words": "x"}, "bad_words"),
        ({"bad_words": [""]}, "bad_words"),
        ({"bad_words": ["x", " \t"]}, "bad_words"),
        ({"bad_words": ["x"] * 257}, "bad_words"),
        ({"bad_words": ["x" * 257]}, "bad_words"),
        ({"bad_words": [5]}, "bad_words"),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"allowed_token_ids": [257]}, "allowed_token_ids"),
        ({"allowed_token_ids": [-1]}, "allowed_token_ids"),
        ({"allowed_token_ids": [True]}, "allowed_token_ids"),
        ({"best_of": 0}, "best_of"),
        ({"best_of": True}, "best_of"),
        ({"best_of": 2, "n": 3}, "best_of"),
        ({"best_of": 5}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"prompt_logprobs": 6}, "prompt_logprobs"),
        ({"prompt_logprobs": 0, "stream": True}, "prompt_logprobs"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": "5"}, "truncate_prompt_tokens"),
        ({"truncation_side": "middle"}, "truncation_side"),
        ({"return_token_ids": 1}, "return_token_ids"),
        ({"return_tokens_as_token_ids": "yes"}, "return_tokens_as_token_ids"),
        ({"request_id": ""}, "request_id"),
        ({"request_id": "a\nb"}, "request_id"),
        ({"request_id": "a" * 129}, "request_id"),
        ({"echo": "yes"}, "echo"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_json": {"type": "nonsense"}}, "guided_json"),
        ({"guided_regex": "("}, "guided_regex"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_grammar": "start: missing"}, "guided_grammar"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
        ({"guided_regex": "a", "use_beam_search": True}, "guided_regex"),
        ({"skip_special_tokens": "no"}, "skip_special_tokens"),
        ({"priority": 2**31}, "priority"),
        ({"priority": 1.5}, "priority"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"user": 5}, "user"),
    ],
)
def test_an_invalid_value_is_named(client: Any, body: Json, param: str) -> None:
    error = error_of(client.complete(**{"prompt": "a", **body}))
    assert error["type"] == "invalid_request_error"
    assert (error["param"] or "").partition(".")[0] == param


@pytest.mark.parametrize(
    "body",
    [
        {"suffix": "end"},
        {"prompt_embeds": "AAAA"},
        {"logprob_token_ids": [1]},
        {"cache_salt": "salt"},
        {"session_id": "s"},
        {"watermarking": True},
        {"repetition_detection": {}},
        {"metadata": {"a": "b"}},
        {"top_logprobs": 3},
        {"watermark": True},
        {"adaptive_target": 0.5},
        {"thinking_token_budget": 5},
        {"stream_interval": 2},
        {"return_token_offsets": True},
        {"vllm_xargs": {"a": 1}},
        {"guided_decoding_backend": "xgrammar"},
        {"guided_whitespace_pattern": " ?"},
        {"structured_outputs": {"structural_tag": "a"}},
    ],
)
def test_an_unsupported_parameter_is_refused_by_name(client: Any, body: Json) -> None:
    error = error_of(client.complete(prompt="a", **body))
    assert error["code"] == "unsupported_parameter"
    assert error["param"].partition(".")[0] == next(iter(body))


def test_of_several_unsupported_parameters_the_first_is_named(client: Any) -> None:
    """So the same request gets the same error from every process."""
    names = ["suffix", "cache_salt", "session_id", "prompt_embeds", "kv_transfer_params", "watermarking"]
    for order in (names, names[::-1]):
        assert error_of(client.complete(prompt="a", **dict.fromkeys(order, "x")))["param"] == order[0]


@pytest.mark.parametrize("body", [{"max_token": 5}, {"stream_options": {"usage": True}, "stream": True}])
def test_an_unknown_field_is_named(client: Any, body: Json) -> None:
    error = error_of(client.complete(prompt="a", **body))
    assert error["code"] == "unknown_parameter"
    assert error["param"] in {"max_token", "usage"}


def test_an_unknown_model_is_not_found(client: Any) -> None:
    error = error_of(client.complete(prompt="a", model="gpt-5"), 404)
    assert (error["param"], error["code"]) == ("model", "model_not_found")


CHAT = "/v1/chat/completions"
SENTENCE = (
    r"This model's maximum context length is 256 tokens\. However, you requested (\d+) tokens( or more)? \(.+\)\."
    r" Please reduce the length of .+\."
)


@pytest.mark.reported("litellm, whose context-window fallback looks for OpenAI's sentence or for TGI's")
@pytest.mark.parametrize(
    ("path", "body", "param", "num_tokens"),
    [
        ("/v1/completions", {"prompt": "a" * 250}, "max_tokens", 266),
        ("/v1/completions", {"prompt": "a" * 256}, "prompt", 272),
        ("/v1/completions", {"prompt": "a" * 60_000}, "prompt", 4616),
        ("/v1/completions", {"prompt": "a", "max_tokens": 256}, "max_tokens", 257),
        (CHAT, {"messages": [{"role": "user", "content": "a" * 256}]}, "messages", 257),
        (CHAT, {"messages": [{"role": "user", "content": "a" * 60_000}]}, "messages", 4616),
        (CHAT, {"messages": [{"role": "user", "content": "a"}], "max_tokens": 300}, "max_tokens", 301),
        ("/v1/score", {"input": "a" * 256}, "input", 257),
        ("/v1/score", {"input": "a" * 60_000}, "input", 4616),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_prompt_over_the_context_length_gets_openais_sentence(
    open_client: Callable[..., Any], path: str, body: Json, param: str, num_tokens: int
) -> None:
    """A text that is too long to tokenize gets a lower bound of its tokens, at 13 bytes per token."""
    template = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}", origin="test")
    error = error_of(open_client(chat_template=template).post(path, json=body))
    assert (error["code"], error["param"]) == ("context_length_exceeded", param)
    found = re.fullmatch(SENTENCE, error["message"])
    assert found is not None, error["message"]
    assert int(found[1]) == num_tokens


@pytest.mark.reported("litellm, whose context-window fallback looks for OpenAI's sentence or for TGI's")
def test_a_prompt_over_the_context_length_gets_tgis_sentence_in_tgis_protocol(client: Any) -> None:
    too_much = client.post("/generate", json={"inputs": "ab", "parameters": {"max_new_tokens": 255}})
    assert too_much.status_code == 422
    sentence = "`inputs` tokens + `max_new_tokens` must be <= 256. Given: 2 `inputs` tokens and 255 `max_new_tokens`"
    assert sentence in too_much.json()["error"]
    too_long = client.post("/generate", json={"inputs": "a" * 256}).json()
    assert "`inputs` must have less than 256 tokens. Given: 256" in too_long["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b'{"prompt": "a"} x',
        b'{"temperature": NaN}',
        b'{"temperature": Infinity}',
        b'{"temperature": 1e999}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "\xff"}',
        b'\xef\xbb\xbf{"prompt": "a"}',
        b'{"prompt": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"prompt": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"prompt": "a", "prompt": "b"}',
        b'{"prompt": "a", "logit_bias": {"5": 1, "5": 2}}',
        b'{"seed": ' + b"9" * 5000 + b"}",
    ],
)
def test_invalid_json_is_refused(client: Any, body: bytes) -> None:
    error_of(client.post("/v1/completions", content=body, headers=JSON))
    assert client.complete(prompt="a").status_code == 200


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "", "multipart/form-data"])
def test_bodies_of_other_media_types_are_refused(client: Any, content_type: str) -> None:
    answer = client.post("/v1/completions", content=b'{"prompt": "a"}', headers={"content-type": content_type})
    assert error_of(answer, 415)["message"].endswith("; with curl: -H 'Content-Type: application/json'")


def test_compressed_bodies_are_refused(client: Any) -> None:
    answer = client.post("/v1/completions", content=b"x", headers={**JSON, "content-encoding": "gzip"})
    error_of(answer, 415)


@pytest.mark.parametrize("is_declared", [True, False])
def test_a_body_over_the_limit_is_refused_while_it_is_read(client: Any, is_declared: bool) -> None:
    async def pieces() -> Any:
        for _ in range(80):
            yield b" " * 1024

    body: Any = b" " * 80 * 1024 if is_declared else pieces()
    answer = client.post("/v1/completions", content=body, headers=JSON)
    error_of(answer, 413)
    assert answer.headers["connection"] == "close"


def test_an_error_never_repeats_the_prompt(client: Any) -> None:
    secret = "my secret diary"
    for body in ({"prompt": {"x": secret}}, {"prompt": secret, "stop": {"x": secret}}, {"user": [secret]}):
        assert secret not in client.complete(**body).text


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/completions", "POST"),
        ("PUT", "/v1/completions", "POST"),
        ("DELETE", "/livez", "GET, HEAD"),
        ("GET", "/tokenize", "POST"),
        ("OPTIONS", "/some prompt", "GET"),
        ("POST", "/livez/", "GET, HEAD"),
        ("HEAD", "/some prompt", "GET"),
        ("PUT", "/", "GET, HEAD, POST"),
        ("OPTIONS", "/v1/models", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_405_and_names_the_allowed_ones(client: Any, method: str, path: str, allowed: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed


def test_a_disconnect_before_the_body_is_no_error(open_client: Callable[..., Any], build_call: Any) -> None:
    """No response and no exception, but one line in the log."""
    client = open_client()
    call = build_call(client.scene.app, "/v1/completions", "POST", headers=[(b"content-type", b"application/json")])
    call.has_read_body = True
    call.gone.set()
    client.runner.run(call.run())
    assert call.sent == []
    assert client.scene.log.calls[-1].kwargs["status"] == 499


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"prompt": "a", "x": 1}, "x"),
        ("/detokenize", {"tokens": [257]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": ["1"]}, "tokens.0"),
    ],
)
def test_token_routes_name_the_invalid_parameter(client: Any, path: str, body: Json, param: str) -> None:
    assert error_of(client.post(path, content=json.dumps(body), headers=JSON))["param"] == param


def test_an_integer_may_be_written_as_a_float(client: Any) -> None:
    """JSON has one number type, and some clients write every number as a float."""
    content = '{"prompt": [111.0, 110.0], "max_tokens": 2.0, "temperature": 1.0}'
    answer = client.post("/v1/completions", content=content, headers=JSON)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["prompt_tokens"] == 2
    error_of(client.post("/v1/completions", content='{"prompt": [1e16]}', headers=JSON))
