"""`/api/generate` and `/api/chat`, as Ollama's clients use them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate

Json = dict[str, Any]

TEMPLATE = ChatTemplate(
    "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}",
    origin="test",
)
END_FIELDS = {
    *("model", "created_at", "done", "done_reason", "total_duration", "load_duration", "prompt_eval_count"),
    *("prompt_eval_duration", "eval_count", "eval_duration"),
}


def lines_of(answer: Any) -> list[Json]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def generate(client: Any, **body: Any) -> Json:
    answer = client.post("/api/generate", json={"prompt": "a", "stream": False, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    read: Json = answer.json()
    return read


def refusal_of(answer: Any, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"error"}
    message: str = answer.json()["error"]
    return message


def prompt_of(client: Any) -> bytes:
    """The tokens of the last request's prompt, which are its bytes."""
    row = client.scene.runner.plans[-1].rows[0]
    return bytes(row.token_ids[: row.num_prompt_tokens])


def params_of(client: Any) -> SamplingParams:
    params: SamplingParams = client.scene.runner.plans[-1].rows[0].params
    return params


@pytest.fixture
def chat_client(open_client: Callable[..., Any]) -> Any:
    return open_client(chat_template=TEMPLATE)


# ---- answers


def test_a_generation_streams_lines_by_default(client: Any) -> None:
    *pieces, last = lines_of(client.post("/api/generate", json={"model": "tiny", "prompt": "ab"}))
    assert "".join(line["response"] for line in pieces) == " hello world"
    assert all(line.keys() == {"model", "created_at", "response", "done"} and not line["done"] for line in pieces)
    assert last.keys() == END_FIELDS | {"response", "context"}
    assert (last["response"], last["done"], last["done_reason"]) == ("", True, "stop")
    assert (last["model"], last["created_at"]) == ("tiny", "2023-11-14T22:13:20.500000Z")
    assert (last["prompt_eval_count"], last["eval_count"]) == (2, 13)
    assert bytes(last["context"]) == b"ab hello world"


def test_durations_are_nanoseconds_and_add_up(client: Any) -> None:
    answer = generate(client)
    parts = [answer[name] for name in ("load_duration", "prompt_eval_duration", "eval_duration")]
    assert all(type(part) is int and part >= 0 for part in parts)
    assert abs(sum(parts) - answer["total_duration"]) < 5
    assert 0 < answer["total_duration"] < 60e9


def test_without_a_stream_the_answer_is_one_object(client: Any) -> None:
    answer = generate(client, options={"num_predict": 6})
    assert answer.keys() == END_FIELDS | {"response", "context"}
    assert (answer["response"], answer["done_reason"], answer["eval_count"]) == (" hello", "length", 6)


def test_a_chat_streams_messages(chat_client: Any) -> None:
    body = {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "hi"}]}
    *pieces, last = lines_of(chat_client.post("/api/chat", json=body))
    assert prompt_of(chat_client) == b"<s>x<u>hi<a>"
    assert "".join(line["message"]["content"] for line in pieces) == " hello world"
    assert {line["message"]["role"] for line in [*pieces, last]} == {"assistant"}
    assert last.keys() == END_FIELDS | {"message"}
    whole = chat_client.post("/api/chat", json={**body, "stream": False}).json()
    assert whole["message"] == {"role": "assistant", "content": " hello world"}


def test_a_chat_continues_the_assistants_last_message(chat_client: Any) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "well"}]
    assert chat_client.post("/api/chat", json={"messages": messages}).status_code == 200
    assert prompt_of(chat_client) == b"<u>hi<a>well"


def test_log_probabilities(client: Any) -> None:
    answer = generate(client, logprobs=True, top_logprobs=2, options={"num_predict": 2})
    first = answer["logprobs"][0]
    assert (first["token"], first["bytes"], round(first["logprob"], 2)) == (" ", [32], -0.32)
    assert [len(token["top_logprobs"]) for token in answer["logprobs"]] == [2, 2]
    body = {"prompt": "a", "logprobs": True, "options": {"num_predict": 2}}
    *pieces, last = lines_of(client.post("/api/generate", json=body))
    assert [token["token"] for line in pieces for token in line["logprobs"]] == [" ", "h"]
    assert "logprobs" not in last


# ---- prompts


def test_a_model_without_a_template_continues_the_prompt(client: Any) -> None:
    generate(client, prompt="Once")
    assert prompt_of(client) == b"Once"


def test_a_template_makes_the_prompt_a_users_message_unless_it_is_raw(chat_client: Any) -> None:
    generate(chat_client, prompt="Once", system="short")
    assert prompt_of(chat_client) == b"<s>short<u>Once<a>"
    assert "context" not in generate(chat_client, prompt="Once", raw=True)
    assert prompt_of(chat_client) == b"Once"


@pytest.mark.parametrize("options", [{}, {"num_predict": 6}, {"stop": ["wor"]}])
def test_a_context_is_continued(client: Any, options: Json) -> None:
    """It has the prompt and the text that the answer shows."""
    answer = generate(client, prompt="ab", options=options)
    assert bytes(answer["context"]).decode() == "ab" + answer["response"]
    generate(client, prompt="c", context=answer["context"])
    assert prompt_of(client).decode() == "ab" + answer["response"] + "c"


def test_an_empty_prompt_only_checks_that_the_model_is_loaded(
    client: Any, open_client: Callable[..., Any], request: pytest.FixtureRequest
) -> None:
    answer = client.post("/api/generate", json={"model": "tiny"})
    assert answer.json().keys() == {"model", "created_at", "response", "done", "done_reason"}
    assert (answer.json()["done"], answer.json()["done_reason"]) == (True, "load")
    chat = client.post("/api/chat", json={"model": "tiny", "messages": []}).json()
    assert (chat["message"], chat["done_reason"]) == ({"role": "assistant", "content": ""}, "load")
    assert client.scene.runner.plans == []


# ---- options


def test_without_options_the_engine_gets_ollamas_defaults(client: Any) -> None:
    generate(client)
    params = params_of(client)
    assert (params.temperature, params.top_k, params.top_p) == (0.8, 40, 0.9)
    assert (params.repetition_penalty, params.min_p, params.typical_p, params.seed) == (1.0, 0.0, 1.0, 7)
    assert params.max_tokens == 255


def test_options_reach_the_engine(client: Any) -> None:
    options = {
        "num_predict": 3,
        "temperature": 0.5,
        "top_k": 5,
        "top_p": 0.5,
        "min_p": 0.1,
        "typical_p": 0.7,
        "seed": 42,
        "repeat_penalty": 1.2,
        "presence_penalty": 0.3,
        "frequency_penalty": 0.4,
        "stop": ["zz", "yy"],
    }
    generate(client, options=options)
    params = params_of(client)
    renamed = {"num_predict": "max_tokens", "repeat_penalty": "repetition_penalty"}
    for name, value in options.items():
        assert getattr(params, renamed.get(name, name)) == (tuple(value) if isinstance(value, list) else value), name


@pytest.mark.parametrize(
    ("options", "num_tokens"),
    [
        *[({"num_predict": -1}, 255), ({"num_predict": -2}, 255), ({"num_predict": 1000}, 255)],
        *[
            ({"num_predict": 0}, 0),
            ({"num_ctx": 5}, 4),
            ({"num_ctx": 5, "num_predict": 2}, 2),
            ({"num_ctx": 2**31}, 255),
        ],
    ],
)
def test_a_completion_ends_where_the_context_does(
    open_client: Callable[..., Any], build_runner: Any, options: Json, num_tokens: int
) -> None:
    client = open_client(runner=build_runner(script=b"a" * 300))
    answer = generate(client, options=options)
    assert (answer["eval_count"], answer["done_reason"]) == (num_tokens, "length")


def test_a_prompt_that_does_not_fit_is_refused(client: Any) -> None:
    for body in ({"prompt": "a" * 256}, {"prompt": "a" * 5, "options": {"num_ctx": 5}}, {"context": [97] * 255}):
        message = refusal_of(client.post("/api/generate", json={"prompt": "a", **body}))
        assert "maximum context length" in message
        assert "num_ctx" in message or "options" not in body


def test_format_constrains_the_answer(open_client: Callable[..., Any], build_runner: Any) -> None:
    client = open_client(runner=build_runner(script=b'{"a": 1}'))
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    for form in ("json", schema):
        assert json.loads(generate(client, format=form)["response"]) == {"a": 1}
        assert params_of(client).grammar is not None
    generate(client, format="")
    assert params_of(client).grammar is None


@pytest.mark.parametrize("keep_alive", [5, -1, 0.5, "5m", "1h30m", "-1s", "300ms", None])
def test_the_model_stays_loaded_as_long_as_asked(client: Any, keep_alive: object) -> None:
    generate(client, keep_alive=keep_alive)


# ---- refusals


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"keep_alive": 0}, "keep_alive"),
        ({"keep_alive": "0s"}, "keep_alive"),
        ({"keep_alive": "5 minutes"}, "keep_alive"),
        ({"keep_alive": True}, "keep_alive"),
        ({"format": "xml"}, "format"),
        ({"format": {"type": "nonsense"}}, "format"),
        ({"suffix": "end"}, "suffix"),
        ({"template": "{{ .Prompt }}"}, "template"),
        ({"images": ["aGk="]}, "images"),
        ({"think": True}, "think"),
        ({"think": "high"}, "think"),
        ({"truncate": True}, "truncate"),
        ({"shift": True}, "shift"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"width": 512}, "width"),
        ({"system": "be brief"}, "system"),
        ({"raw": True, "system": "be brief"}, "system"),
        ({"raw": True, "context": [1]}, "context"),
        ({"context": [257]}, "context"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 6}, "top_logprobs"),
        ({"prompt": ["a"]}, "prompt"),
        ({"options": {"num_gpu": 1}}, "num_gpu"),
        ({"options": {"num_thread": 4}}, "num_thread"),
        ({"options": {"num_batch": 512}}, "num_batch"),
        ({"options": {"num_keep": 24}}, "num_keep"),
        ({"options": {"tfs_z": 0.5}}, "tfs_z"),
        ({"options": {"temperature": -1}}, "options.temperature"),
        ({"options": {"num_predict": -3}}, "options.num_predict"),
        ({"options": {"num_ctx": 0}}, "options.num_ctx"),
        ({"options": {"stop": "a"}}, "options.stop"),
        ({"options": {"stop": ["a"] * 5}}, "options.stop"),
        ({"options": {"stop": ["a" * 9000]}}, "options.stop"),
        ({"options": {"max_tokens": 1}}, "max_tokens"),
        ({"options": 5}, "options"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(client: Any, body: Json, name: str) -> None:
    assert name in refusal_of(client.post("/api/generate", json={"prompt": "a", **body}))
    assert client.scene.runner.plans == []


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "a", "images": ["aGk="]},
        {"role": "assistant", "content": "a", "tool_calls": [{}]},
        {"role": "assistant", "content": "a", "thinking": "hm"},
        {"role": "tool", "content": "a", "tool_name": "x"},
    ],
)
def test_a_message_with_more_than_text_is_refused(chat_client: Any, message: Json) -> None:
    assert "messages.0" in refusal_of(chat_client.post("/api/chat", json={"messages": [message]}))


def test_a_chat_without_a_template_names_the_route_for_prompts(client: Any) -> None:
    message = refusal_of(client.post("/api/chat", json={"messages": [{"role": "user", "content": "a"}]}))
    assert "chat template" in message
    assert "/api/generate" in message


def test_names_of_the_model(open_client: Callable[..., Any]) -> None:
    client = open_client(served_names=("stories", "tales:7b"))
    for name in ("stories", "stories:latest", "tales:7b", ""):
        assert generate(client, model=name)["model"] == (name or "stories")
    for name in ("tales", "tales:latest", "stories:7b", "llama3.2"):
        assert "served: 'stories', 'tales:7b'" in refusal_of(
            client.post("/api/generate", json={"model": name, "prompt": "a"}), 404
        )


@pytest.mark.parametrize(
    ("method", "path", "advice"),
    [
        ("POST", "/api/pull", "distilgpt2-api pull"),
        ("POST", "/api/push", "distilgpt2-api serve --model"),
        ("POST", "/api/create", "distilgpt2-api serve --model"),
        ("POST", "/api/copy", "distilgpt2-api serve --model"),
        ("DELETE", "/api/delete", "distilgpt2-api serve --model"),
        ("POST", "/api/blobs/sha256:00", "distilgpt2-api serve --model"),
        ("POST", "/api/embed", "/v1/score"),
        ("POST", "/api/embeddings", "/v1/score"),
        ("POST", "/api/generat", "/api/generate"),
    ],
)
def test_routes_that_are_missing_say_what_to_do_instead(client: Any, method: str, path: str, advice: str) -> None:
    answer = client.request(method, path, json={"model": "tiny"})
    message = refusal_of(answer, 404)
    assert f"no such URL: {method} {path}" in message
    assert advice in message


def test_a_client_that_hangs_up_aborts_the_generation(
    open_client: Callable[..., Any], build_runner: Any, hang_up: Callable[..., Any]
) -> None:
    client = open_client(runner=build_runner(is_gated=True))
    hang_up(client, "/api/generate", prompt="a")
