"""`POST /v1/chat/completions`: refused without a template; with one, its answers, streamed and whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate

Json = dict[str, Any]

TEMPLATE = """\
{%- for message in messages %}
    {%- if message.role not in ('system', 'user', 'assistant') %}{{ raise_exception('no such role') }}{% endif %}
    {{- '[' + message.role + ']' + message.content + ('!' if shout else '.') }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"""
HELLO = [{"role": "user", "content": "hi"}]
PATH = "/v1/chat/completions"


@pytest.fixture
def open_chat(open_client: Callable[..., Any]) -> Callable[..., Any]:
    def opened(template: str = TEMPLATE, **options: Any) -> Any:
        return open_client(chat_template=ChatTemplate(template, origin="test"), **options)

    return opened


@pytest.fixture
def client(open_chat: Callable[..., Any]) -> Any:
    return open_chat()


def chat(client: Any, messages: Any = HELLO, **body: Any) -> Any:
    return client.post(PATH, json={"messages": messages, **body})


def stream(client: Any, messages: Any = HELLO, **body: Any) -> list[Json]:
    answer = chat(client, messages, stream=True, **body)
    assert answer.status_code == 200, answer.text
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


def error_of(answer: Any, status: int = 400) -> Json:
    assert answer.status_code == status, answer.text
    error: Json = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error


def prompt_of(client: Any) -> str:
    row = client.scene.runner.plans[-1].rows[0]
    return bytes(row.token_ids[: row.num_prompt_tokens]).decode()


def test_without_a_template_the_400_says_what_to_do(open_client: Callable[..., Any]) -> None:
    """For any body. Completions and the list of models still work."""
    client = open_client()
    for body in ({"messages": HELLO}, {}, {"messages": [], "x": 1}):
        message = error_of(client.post(PATH, json=body))["message"]
        for way in ("/v1/completions", "chat_template.jinja", "tokenizer_config.json", "DISTILGPT2_CHAT_TEMPLATE"):
            assert way in message
    assert client.complete(prompt="a").status_code == 200
    assert client.get("/v1/models").json()["data"][0].keys() == {
        "id", "object", "created", "owned_by", "root", "max_model_len", "generation_config",
    }  # fmt: skip


def test_an_answer_has_every_field(client: Any) -> None:
    answer = chat(client, max_completion_tokens=6)
    assert answer.status_code == 200
    body = answer.json()
    assert body.pop("id").startswith("chatcmpl-")
    assert body.pop("system_fingerprint").startswith("fp_")
    num_prompt_tokens = len("[user]hi.[assistant]")
    assert body == {
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "organisation/tiny",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": " hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "length",
                "stop_reason": None,
            }
        ],
        "usage": {
            "prompt_tokens": num_prompt_tokens,
            "completion_tokens": 6,
            "total_tokens": num_prompt_tokens + 6,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }
    assert prompt_of(client) == "[user]hi.[assistant]"


def test_a_stream_begins_with_the_role_and_ends_with_the_reason(client: Any) -> None:
    chunks = stream(client, max_tokens=3)
    assert [chunk["choices"] for chunk in chunks] == [
        [{"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}],
        [{"index": 0, "delta": {"content": " "}, "logprobs": None, "finish_reason": None}],
        [{"index": 0, "delta": {"content": "h"}, "logprobs": None, "finish_reason": None}],
        [{"index": 0, "delta": {"content": "e"}, "logprobs": None, "finish_reason": None}],
        [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length", "stop_reason": None}],
    ]
    assert {(chunk["object"], chunk["created"]) for chunk in chunks} == {("chat.completion.chunk", 1_700_000_000)}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all("usage" not in chunk for chunk in chunks)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n": 3},
        {"logprobs": True},
        {"logprobs": True, "top_logprobs": 3, "n": 2},
        {"stop": "wor"},
        {"stop": "wor", "include_stop_str_in_output": True, "logprobs": True},
        {"stop_token_ids": [ord("w")]},
        {"max_tokens": 3},
        {"ignore_eos": True, "max_tokens": 30},
    ],
)
def test_streamed_and_whole_agree_field_by_field(client: Any, options: Json) -> None:
    body = {"max_completion_tokens": options.get("max_tokens", 20), **options}
    whole = chat(client, **body).json()
    chunks = stream(client, **body, stream_options={"include_usage": True})

    joined: list[Json] = [
        {"index": index, "message": {"role": None, "content": "", "refusal": None}, "logprobs": None}
        for index in range(options.get("n", 1))
    ]
    for chunk in chunks[:-1]:
        assert chunk["usage"] is None
        for piece in chunk["choices"]:
            choice = joined[piece["index"]]
            assert "finish_reason" not in choice, "nothing comes after the finish reason"
            choice["message"]["role"] = piece["delta"].get("role", choice["message"]["role"])
            choice["message"]["content"] += piece["delta"].get("content", "")
            if piece["logprobs"] is not None:
                logprobs = choice["logprobs"] = choice["logprobs"] or {"content": [], "refusal": None}
                logprobs["content"] += piece["logprobs"]["content"]
            if piece["finish_reason"] is not None:
                choice |= {name: piece[name] for name in ("finish_reason", "stop_reason")}
    assert joined == whole["choices"]
    assert chunks[-1]["choices"] == []
    cached = {"prompt_tokens_details": {"cached_tokens": 0}}
    assert chunks[-1]["usage"] | cached == whole["usage"] | cached


def test_logprobs_list_the_token_its_bytes_and_the_likeliest(open_chat: Callable[..., Any], build_runner: Any) -> None:
    client = open_chat(runner=build_runner(script="hé".encode()))
    choice = chat(client, max_tokens=3, logprobs=True, top_logprobs=2).json()["choices"][0]
    top = [{"token": "\0", "logprob": 0.0, "bytes": [0]}, {"token": "\x01", "logprob": -0.01, "bytes": [1]}]
    assert choice["logprobs"] == {
        "content": [
            {"token": "h", "logprob": -1.04, "bytes": [104], "top_logprobs": top},
            {"token": "bytes:\\xc3", "logprob": -1.95, "bytes": [195], "top_logprobs": top},
            {"token": "bytes:\\xa9", "logprob": -1.69, "bytes": [169], "top_logprobs": top},
        ],
        "refusal": None,
    }


def test_usage_can_come_with_every_chunk(client: Any) -> None:
    chunks = stream(client, max_tokens=4, stream_options={"include_usage": True, "continuous_usage_stats": True})
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert (counts[0], counts[-1]) == (1, 4)
    assert counts == sorted(counts)


@pytest.mark.parametrize("has_usage", [False, True])
def test_llama_cpps_web_client_gets_progress_and_timings(client: Any, has_usage: bool) -> None:
    """It sends these fields with every message (`tools/ui/src/lib/services/chat.service.ts`)."""
    progress, *chunks = stream(
        client,
        return_progress=True,
        reasoning_format="auto",
        timings_per_token=True,
        backend_sampling=False,
        stream_options={"include_usage": has_usage},
    )
    num_tokens = len("[user]hi.[assistant]")
    assert progress["choices"] == []
    assert progress["prompt_progress"] == {
        "total": num_tokens,
        "cache": 0,
        "processed": num_tokens,
        "time_ms": progress["timings"]["prompt_ms"],
    }
    assert all(("usage" in chunk) is has_usage for chunk in [progress, *chunks])
    counts = [chunk["timings"]["predicted_n"] for chunk in chunks]
    assert counts == sorted(counts)
    assert (chunks[-1]["choices"], chunks[-1]["timings"]["predicted_n"]) == ([], 13)
    assert chat(client, timings_per_token=True).json()["timings"]["predicted_n"] == 13


def test_an_event_is_one_line_for_every_reader(open_chat: Callable[..., Any], build_runner: Any) -> None:
    script = "a\u0085b\u2028c\u2029d\r\n"
    client = open_chat(runner=build_runner(script=script.encode()))
    answer = chat(client, stream=True, logprobs=True)
    events = [line for line in answer.text.splitlines() if line]
    assert all(line.startswith("data: ") for line in events)
    deltas = [json.loads(line.removeprefix("data: "))["choices"][0]["delta"] for line in events[:-1]]
    assert "".join(delta.get("content", "") for delta in deltas) == script


def test_without_a_length_the_answer_may_fill_the_context(client: Any) -> None:
    """As in OpenAI's and vLLM's API. The model has 256 positions."""
    body = chat(client, ignore_eos=True).json()
    assert body["usage"]["total_tokens"] == 256
    assert body["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("messages", "options", "prompt"),
    [
        ([{"role": "system", "content": "s"}, *HELLO], {}, "[system]s.[user]hi.[assistant]"),
        ([{"role": "developer", "content": "s"}, *HELLO], {}, "[system]s.[user]hi.[assistant]"),
        ([{"role": "user", "content": [{"type": "text", "text": t} for t in "ab"]}], {}, "[user]a\nb.[assistant]"),
        (HELLO, {"add_generation_prompt": False}, "[user]hi."),
        (HELLO, {"chat_template_kwargs": {"shout": True}}, "[user]hi![assistant]"),
        ([*HELLO, {"role": "assistant", "content": "Oh"}], {"continue_final_message": True}, "[user]hi.[assistant]Oh"),
        (
            [{"role": "assistant", "content": "x", "refusal": None, "tool_calls": [], "audio": None}, *HELLO],
            {},
            "[assistant]x.[user]hi.[assistant]",
        ),
    ],
)
def test_messages_reach_the_model_as_the_template_renders_them(
    client: Any, messages: list[Json], options: Json, prompt: str
) -> None:
    assert chat(client, messages, max_tokens=1, **options).status_code == 200
    assert prompt_of(client) == prompt


def test_a_template_that_knows_developers_and_names_gets_them(open_chat: Callable[..., Any]) -> None:
    client = open_chat("{% for m in messages %}{{ m.name }}{{ m.role == 'developer' }}{% endfor %}")
    assert chat(client, [{"role": "developer", "name": "Ann", "content": "x"}], max_tokens=1).status_code == 200
    assert prompt_of(client) == "AnnTrue"


def test_special_tokens_are_those_of_the_models_config(open_chat: Callable[..., Any]) -> None:
    """If the tokenizer's files name none. In the prompt each is one token."""
    client = open_chat("{{ eos_token }}{{ messages[0].content }}")
    assert chat(client, max_tokens=1).json()["usage"]["prompt_tokens"] == 3
    assert client.scene.runner.plans[-1].rows[0].token_ids[0] == 256


def test_parameters_reach_the_engine(client: Any) -> None:
    sent = {"temperature": 0.5, "top_p": 0.9, "presence_penalty": 1, "frequency_penalty": -1, "seed": 3, "top_k": 7}
    assert chat(client, max_tokens=5, stop=["x"], logit_bias={"5": -100}, n=2, **sent).status_code == 200
    rows = client.scene.runner.plans[0].rows
    params = rows[0].params
    assert {name: getattr(params, name) for name in sent} == sent
    assert (params.max_tokens, params.stop, params.logit_bias, len(rows)) == (5, ("x",), ((5, -100.0),), 2)


def test_a_grammar_constrains_the_answer(open_chat: Callable[..., Any], build_runner: Any) -> None:
    client = open_chat(runner=build_runner(script=b'{"a": 1}'))
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    named = {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema}}
    for body in ({"response_format": named}, {"guided_json": schema}, {"structured_outputs": {"json": schema}}):
        assert chat(client, max_tokens=20, **body).json()["choices"][0]["message"]["content"] == '{"a": 1}'
        grammar = client.scene.runner.plans[-1].rows[0].params.grammar
        assert (grammar.kind, json.loads(grammar.source)) == ("json_schema", schema)
    assert chat(client, max_tokens=1, response_format={"type": "text"}).status_code == 200
    assert client.scene.runner.plans[-1].rows[0].params.grammar is None
    assert error_of(chat(client, response_format={"type": "x"}))["param"] == "response_format.type"


def test_null_and_values_without_effect_change_nothing(client: Any) -> None:
    schema = client.get("/openapi.json").json()["components"]["schemas"]["ChatCompletionRequest"]
    nulls = dict.fromkeys(name for name in schema["properties"] if name != "messages")
    asks_nothing = {"store": False, "tools": [], "tool_choice": "auto", "modalities": ["text"], "metadata": {}}
    for body in (nulls, asks_nothing, {"user": "ann"}, {"max_tokens": 2, "max_completion_tokens": 2}):
        assert chat(client, **body).status_code == 200
    assert client.scene.log.calls[3].kwargs["user_hash"]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ("hi", "messages"),
        ([], "messages"),
        (HELLO * 257, "messages"),
        (["hi"], "messages.0"),
        ([{}], "messages.0.role"),
        ([{"role": "user"}], "messages.0.content"),
        ([{"role": "wizard", "content": "x"}], "messages.0.role"),
        ([{"role": 5, "content": "x"}], "messages.0.role"),
        ([*HELLO, {"role": "user", "content": None}], "messages.1.content"),
        ([{"role": "user", "content": []}], "messages.0.content"),
        ([{"role": "user", "content": 5}], "messages.0.content"),
        ([{"role": "user", "content": ["x"]}], "messages.0.content.0"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages.0.content.0"),
        ([{"role": "user", "content": [{"type": "text", "text": "x", "y": 1}]}], "messages.0.content.0"),
        ([{"role": "user", "content": "x", "name": "ann"}], "messages.0.name"),
        ([{"role": "user", "content": "x", "name": 5}], "messages.0.name"),
        ([{"role": "user", "content": "x", "weight": 1}], "messages.0.weight"),
        ([{"role": "user", "content": "a" * 300}], "messages"),
        ([{"role": "user", "content": "a" * 60_000}], "messages"),
    ],
)
def test_invalid_messages_are_refused_by_name(client: Any, messages: Any, param: str) -> None:
    assert error_of(chat(client, messages))["param"] == param


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "tool", "content": "x"}, "messages.0.role"),
        ({"role": "function", "content": "x"}, "messages.0.role"),
        ({"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}, "messages.0.tool_calls"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]},
            "messages.0.content.0.type",
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "input_audio", "input_audio": {}}]},
            "messages.0.content.1.type",
        ),
    ],
)
def test_images_audio_and_tools_are_refused_by_name(client: Any, message: Json, param: str) -> None:
    error = error_of(chat(client, [message]))
    assert (error["param"], error["code"]) == (param, "unsupported_parameter")


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"functions": [{"name": "f"}]},
        {"tool_choice": "required"},
        {"modalities": ["text", "audio"]},
        {"audio": {"voice": "a", "format": "wav"}},
        {"reasoning_effort": "high"},
        {"store": True},
        {"chat_template": "{{ messages }}"},
        {"echo": True},
        {"documents": [{"text": "x"}]},
    ],
)
def test_what_is_not_supported_is_refused_by_name(client: Any, body: Json) -> None:
    error = error_of(chat(client, **body))
    assert (error["param"], error["code"]) == (next(iter(body)), "unsupported_parameter")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_completion_tokens": 5, "max_tokens": 6}, "max_tokens"),
        ({"max_completion_tokens": 250}, "max_completion_tokens"),
        ({"max_tokens": 250}, "max_tokens"),
        ({"logprobs": 5}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 6}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"n": 5}, "n"),
        ({"prompt": "x"}, "prompt"),
        ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
        ({"chat_template_kwargs": {"whisper": True}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": 5}, "chat_template_kwargs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
def test_a_wrong_value_is_named(client: Any, body: Json, param: str) -> None:
    assert error_of(chat(client, **body))["param"] == param


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_template_that_refuses_messages_is_a_400_with_its_message(
    open_chat: Callable[..., Any], is_stream: bool
) -> None:
    client = open_chat("{{ raise_exception('roles must alternate') }}")
    error = error_of(chat(client, stream=is_stream))
    assert (error["message"], error["param"]) == ("messages: roles must alternate", "messages")


def test_a_template_that_renders_to_nothing_is_a_400(open_chat: Callable[..., Any]) -> None:
    assert error_of(chat(open_chat("{# nothing #}")))["param"] == "messages"


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_hang_up_frees_every_block(
    open_chat: Callable[..., Any], build_runner: Any, hang_up: Any, is_stream: bool
) -> None:
    """Streamed and whole."""
    client = open_chat(runner=build_runner(is_gated=True))
    hang_up(client, PATH, messages=HELLO, n=2, stream=is_stream)
    assert client.scene.log.calls[-1].kwargs["is_disconnect"] is True
    assert chat(client, max_tokens=1).status_code == 200
    assert client.scene.engines[0].num_free_blocks == 64


def test_an_unknown_model_is_not_found(client: Any) -> None:
    assert error_of(chat(client, model="gpt-5"), 404)["param"] == "model"
    assert chat(client, model="tiny", max_tokens=1).json()["model"] == "organisation/tiny"
