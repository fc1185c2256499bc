"""`/tokenize`, `/detokenize` and `/tokenizer_info`, beyond plain texts: chats, and models of other kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.text.chat_template import ChatTemplate

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[a]{% endif %}"
)
HELLO = [{"role": "user", "content": "hi"}]


@pytest.fixture
def chatting(open_client: Callable[..., Any]) -> Any:
    return open_client(chat_template=ChatTemplate(TEMPLATE, origin="test"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "[user]hi[a]"),
        ({"add_generation_prompt": True, "tools": None, "add_special_tokens": False}, "[user]hi[a]"),
        ({"add_generation_prompt": False}, "[user]hi"),
        ({"continue_final_message": True}, "[user]hi"),
    ],
)
def test_messages_are_tokenized_as_a_chat_lays_them_out(chatting: Any, options: dict[str, Any], text: str) -> None:
    answer = chatting.post("/tokenize", json={"messages": HELLO, "return_token_strs": True, **options}).json()
    assert bytes(answer["tokens"]).decode() == "".join(answer["token_strs"]) == text
    assert answer["count"] == len(text)


def test_a_chat_s_prompt_has_as_many_tokens_as_tokenize_says(chatting: Any) -> None:
    count = chatting.post("/tokenize", json={"messages": HELLO}).json()["count"]
    answer = chatting.post("/v1/chat/completions", json={"messages": HELLO, "max_tokens": 1}).json()
    assert answer["usage"]["prompt_tokens"] == count


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"prompt": "a"}, "prompt"),
        ({"chat_template": "{{ messages }}"}, "chat_template"),
        ({"tools": [{}]}, "tools"),
        ({"chat_template_kwargs": {"x": 1}}, "chat_template_kwargs"),
        ({"messages": [{"role": "user", "content": "a" * 300}]}, "messages"),
    ],
)
def test_what_is_wrong_with_a_chat_is_named(chatting: Any, options: dict[str, Any], param: str) -> None:
    answer = chatting.post("/tokenize", json={"messages": HELLO, **options})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_messages_need_a_template(client: Any) -> None:
    answer = client.post("/tokenize", json={"messages": HELLO})
    assert answer.status_code == 400
    assert "chat template" in answer.json()["error"]["message"]


def test_the_tokenizer_shows_its_chat_template(chatting: Any) -> None:
    """lm-evaluation-harness renders it itself."""
    assert chatting.get("/tokenizer_info").json()["chat_template"] == TEMPLATE


@pytest.mark.reported("an attack with twenty long texts at once, which took two gigabytes")
def test_a_text_far_beyond_the_context_is_tokenized(open_client: Callable[..., Any]) -> None:
    client = open_client(max_body_bytes=1 << 20, max_uploads_bytes=1 << 20)
    text = "ab " * 100_000
    answer = client.post("/tokenize", json={"prompt": text, "return_token_strs": True}).json()
    assert answer["count"] == len(text)
    assert bytes(answer["tokens"]).decode() == "".join(answer["token_strs"]) == text
    choice = client.complete(prompt=text, truncate_prompt_tokens=5, echo=True, max_tokens=0).json()["choices"][0]
    assert choice["text"] == text[-5:]


@pytest.mark.parametrize("extra", [{}, {"truncate_prompt_tokens": 5}])
def test_a_text_without_a_place_to_cut_it_is_bounded(open_client: Callable[..., Any], extra: dict[str, Any]) -> None:
    path = "/v1/completions" if extra else "/tokenize"
    answer = open_client(max_body_bytes=2 << 20, max_uploads_bytes=2 << 20).post(
        path, json={"prompt": "a" * (2**20 + 1), **extra}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "prompt"
    assert "1048577 bytes" in answer.json()["error"]["message"]
    assert "at most 1048576" in answer.json()["error"]["message"]


@pytest.mark.reported("a reading of /detokenize: two bytes of a body became thirteen of its answer")
def test_detokenized_text_is_bounded(open_client: Callable[..., Any]) -> None:
    client = open_client(max_body_bytes=4 << 20, max_uploads_bytes=4 << 20)
    most = (4 << 20) // len("<|endoftext|>")
    assert len(client.post("/detokenize", json={"tokens": [256] * most}).json()["prompt"]) == 13 * most
    answer = client.post("/detokenize", json={"tokens": [256] * (most + 1)})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "tokens"
    assert "at most 4194304" in answer.json()["error"]["message"]
