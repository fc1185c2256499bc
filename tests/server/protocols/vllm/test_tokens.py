"""`/tokenize`, `/detokenize` and `/tokenizer_info`: texts, chats, and other tokenizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.server.conftest import byte_tokenizer

from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer
from distilgpt2_api.text.tokenization.tokenizer_files import TokenizerFiles
from distilgpt2_api.text.tokenization.tokenizer_frame import Frame

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
def test_messages_are_tokenized_as_a_chat_renders_them(chatting: Any, options: dict[str, Any], text: str) -> None:
    answer = chatting.post("/tokenize", json={"messages": HELLO, "return_token_strs": True, **options}).json()
    assert bytes(answer["tokens"]).decode() == "".join(answer["token_strs"]) == text
    assert answer["count"] == len(text)


BOS_ID, EOS_ID = 256, 10


@pytest.fixture
def framing(build_scene: Callable[..., Any], open_client: Callable[..., Any]) -> Any:
    """A service with a tokenizer whose files name BOS and EOS and put them around a text."""
    library = byte_tokenizer()
    roles = {"bos_token": "<|endoftext|>", "eos_token": "\u010a", "pad_token": "nowhere"}
    files = TokenizerFiles(library=library, roles=roles, frame=Frame((BOS_ID,), (EOS_ID,)))
    template = ChatTemplate(TEMPLATE, origin="test")
    return open_client(build_scene(tokenizer=Tokenizer(library, files=files), chat_template=template))


@pytest.mark.reported("a tokenizer.json with a BOS template; vLLM adds it unless add_special_tokens is false")
@pytest.mark.parametrize(
    ("body", "is_framed"),
    [
        ({"prompt": "ab"}, True),
        ({"prompt": "ab", "add_special_tokens": True}, True),
        ({"prompt": "ab", "add_special_tokens": False}, False),
        ({"messages": HELLO}, False),
        ({"messages": HELLO, "add_special_tokens": True}, True),
    ],
)
def test_tokens_around_a_text_are_added_as_vllm_adds_them(framing: Any, body: dict[str, Any], is_framed: bool) -> None:
    """To prompts by default, to chats only on request. Other routes count the same tokens."""
    tokens = framing.post("/tokenize", json=body).json()["tokens"]
    own = b"ab" if "prompt" in body else b"[user]hi[a]"
    assert tokens == ([BOS_ID, *own, EOS_ID] if is_framed else [*own])
    path = "/v1/completions" if "prompt" in body else "/v1/chat/completions"
    assert framing.post(path, json=body | {"max_tokens": 1}).json()["usage"]["prompt_tokens"] == len(tokens)


def test_the_tokenizers_flags_match_its_behaviour(framing: Any, client: Any) -> None:
    info = framing.get("/tokenizer_info").json()
    assert (info["add_bos_token"], info["add_eos_token"], info["add_prefix_space"]) == (True, True, False)
    assert (info["bos_token"], info["pad_token"]) == ("<|endoftext|>", None)
    info = client.get("/tokenizer_info").json()
    assert (info["add_bos_token"], info["add_eos_token"], info["add_prefix_space"]) == (False, False, False)


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ({"truncate_prompt_tokens": 3}, [BOS_ID, ord("c"), EOS_ID]),
        ({"truncate_prompt_tokens": 3, "truncation_side": "right"}, [BOS_ID, ord("a"), EOS_ID]),
        ({"truncate_prompt_tokens": 2}, [ord("b"), ord("c")]),
        ({"truncate_prompt_tokens": 3, "add_special_tokens": False}, [*b"abc"]),
        ({"truncate_prompt_tokens": 5}, [BOS_ID, *b"abc", EOS_ID]),
    ],
)
def test_truncation_cuts_only_the_texts_own_tokens(framing: Any, options: dict[str, Any], ids: list[int]) -> None:
    """As in the `tokenizers` library. If only the tokens around the text would fit, they are dropped."""
    answer = framing.complete(prompt="abc", max_tokens=1, return_token_ids=True, **options).json()
    assert answer["choices"][0]["prompt_token_ids"] == ids


def test_echoed_log_probabilities_list_the_tokens_around_a_text_but_not_in_it(framing: Any) -> None:
    [choice] = framing.complete(prompt="ab", max_tokens=1, echo=True, logprobs=0).json()["choices"]
    assert choice["text"] == "ab "
    assert choice["logprobs"]["tokens"] == ["<|endoftext|>", "a", "b", "\n", " "]
    assert choice["logprobs"]["text_offset"] == [0, 0, 1, 2, 2]


def test_every_other_way_to_send_a_text_adds_them_too(framing: Any) -> None:
    """TGI, the plain path, and scores, which add a beginning but no end."""

    def last_prompt() -> list[int]:
        row = framing.scene.runner.plans[-1].rows[0]
        return list(row.token_ids[: row.num_prompt_tokens])

    framing.post("/generate", json={"inputs": "ab", "parameters": {"max_new_tokens": 1}})
    assert last_prompt() == [BOS_ID, *b"ab", EOS_ID]
    framing.get("/ab?max_new_tokens=1")
    assert last_prompt() == [BOS_ID, *b"ab", EOS_ID]
    score = framing.post("/v1/score", json={"input": {"context": "a", "continuation": "b"}}).json()
    assert (last_prompt(), score["data"][0]["num_tokens"]) == ([BOS_ID, *b"ab"], 1)
    score = framing.post("/v1/score", json={"input": "ab"}).json()
    assert (last_prompt(), score["data"][0]["num_tokens"]) == ([BOS_ID, *b"ab"], 2)


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
def test_an_invalid_chat_is_refused_by_name(chatting: Any, options: dict[str, Any], param: str) -> None:
    answer = chatting.post("/tokenize", json={"messages": HELLO, **options})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_messages_need_a_template(client: Any) -> None:
    answer = client.post("/tokenize", json={"messages": HELLO})
    assert answer.status_code == 400
    assert "chat template" in answer.json()["error"]["message"]


def test_the_tokenizer_shows_its_chat_template(chatting: Any) -> None:
    """lm-evaluation-harness renders the template itself."""
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
def test_text_that_cannot_be_split_is_bounded(open_client: Callable[..., Any], extra: dict[str, Any]) -> None:
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


def test_detokenize_inverts_tokenize(client: Any) -> None:
    text = "né <|endoftext|>"
    answer = client.post("/tokenize", json={"prompt": text, "return_token_strs": True}).json()
    assert answer["tokens"] == [110, 195, 169, 32, 256]
    assert answer["token_strs"] == ["n", "bytes:\\xc3", "bytes:\\xa9", " ", "<|endoftext|>"]
    assert (answer["count"], answer["max_model_len"]) == (5, 256)
    assert client.post("/detokenize", json={"tokens": answer["tokens"]}).json() == {"prompt": text, "content": text}
    assert client.post("/tokenize", json={"prompt": ""}).json()["tokens"] == []


def test_tokenizer_info_has_the_special_tokens(client: Any) -> None:
    """As in vLLM; lm-evaluation-harness tokenizes them to find their ids."""
    info = client.get("/tokenizer_info").json()
    assert info["bos_token"] == info["eos_token"] == "<|endoftext|>"
    assert (info["pad_token"], info["chat_template"], info["model_max_length"]) == (None, None, 256)
    request = {"prompt": info["eos_token"], "add_special_tokens": False}
    assert client.post("/tokenize", json=request).json()["tokens"] == [256]


def test_a_long_text_is_tokenized_like_a_short_one(client: Any) -> None:
    answer = client.post("/tokenize", json={"prompt": "a" * 20_000}).json()
    assert answer["count"] == 20_000


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        ({}, [111, 110]),
        ({"add_special": True}, [BOS_ID, 111, 110, EOS_ID]),
        ({"with_pieces": True}, [{"id": 111, "piece": "o"}, {"id": 110, "piece": "n"}]),
        ({"parse_special": True}, [111, 110]),
    ],
)
def test_llama_cpps_form_is_answered_in_llama_cpps_form(framing: Any, options: dict[str, Any], tokens: object) -> None:
    assert framing.post("/tokenize", json={"content": "on", **options}).json() == {"tokens": tokens}


def test_a_piece_of_a_character_is_its_bytes(client: Any) -> None:
    answer = client.post("/tokenize", json={"content": "\u00e1", "with_pieces": True}).json()
    assert answer == {"tokens": [{"id": 195, "piece": [195]}, {"id": 161, "piece": [161]}]}
    assert client.post("/tokenize", json={"content": ""}).json() == {"tokens": []}


@pytest.mark.parametrize(
    "body", [{"content": 5}, {"content": "a", "prompt": "a"}, {"content": "a", "parse_special": False}]
)
def test_llama_cpps_form_names_the_invalid_parameter(client: Any, body: dict[str, Any]) -> None:
    error = client.post("/tokenize", json=body).json()["error"]
    assert error["param"] == list(body)[-1]
