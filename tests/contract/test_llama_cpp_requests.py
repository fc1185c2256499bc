"""The requests of llama.cpp's own server tests (`tools/server/tests/unit`, as in llama-cpp-python 0.3.36).

Their checks hold too, without the values of their model and of their server's options.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.e2e.conftest import DEADLINE_S, Service

Json = dict[str, Any]

PROMPT = "I believe the meaning of life is"
WORDS = ["i", "I", "the", "The", "to", "a", "an", "be", "is", "was", "but", "But", "and", "And", "you", "he", "book"]


@pytest.fixture(scope="module")
def client(server: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=DEADLINE_S) as client:
        yield client


def complete(client: httpx.Client, **body: Any) -> Any:
    answer = client.post("/completion", json={"prompt": PROMPT, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def stream(client: httpx.Client, **body: Any) -> list[Json]:
    answer = client.post("/completion", json={"prompt": PROMPT, "stream": True, **body})
    assert answer.status_code == 200, answer.text
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]


def tokens_of(client: httpx.Client, content: str, **options: Any) -> list[Any]:
    answer = client.post("/tokenize", json={"content": content, **options})
    assert answer.status_code == 200, answer.text
    tokens: list[Any] = answer.json()["tokens"]
    return tokens


@pytest.mark.parametrize("return_tokens", [False, True])
def test_completion(client: httpx.Client, return_tokens: bool) -> None:
    answer = complete(client, n_predict=8, return_tokens=return_tokens, ignore_eos=True)
    num_prompt_tokens = len(tokens_of(client, PROMPT))
    assert answer["timings"]["prompt_n"] + answer["timings"]["cache_n"] == num_prompt_tokens
    assert answer["timings"]["predicted_n"] == 8
    assert (answer["truncated"], type(answer["has_new_line"])) == (False, bool)
    assert all(type(token) is int for token in answer["tokens"])
    assert len(answer["tokens"]) == (8 if return_tokens else 0)


def test_completion_stream(client: httpx.Client) -> None:
    *chunks, end = stream(client, n_predict=8, seed=42, ignore_eos=True)
    for chunk in chunks:
        assert chunk["stop"] is False
        assert chunk["tokens"]
        assert all(type(token) is int for token in chunk["tokens"])
    assert (end["stop"], end["stop_type"], end["truncated"]) == (True, "limit", False)
    assert (end["timings"]["predicted_n"], type(end["has_new_line"])) == (8, bool)
    assert (end["generation_settings"]["n_predict"], end["generation_settings"]["seed"]) == (8, 42)
    whole = complete(client, n_predict=8, seed=42, ignore_eos=True)
    assert "".join(chunk["content"] for chunk in chunks) == whole["content"]


def test_seeds(client: httpx.Client) -> None:
    same = [complete(client, seed=42, temperature=0.0, cache_prompt=False, n_predict=20) for _ in range(4)]
    assert len({answer["content"] for answer in same}) == 1
    others = [
        complete(client, seed=seed, temperature=1.0, cache_prompt=False, n_predict=20, ignore_eos=True)
        for seed in range(4)
    ]
    assert len({answer["content"] for answer in others}) == 4


def test_json_prompts(client: httpx.Client) -> None:
    prompt = {"prompt_string": PROMPT}
    assert isinstance(complete(client, prompt=prompt, n_predict=8)["content"], str)
    with_media = {"prompt": {**prompt, "multimodal_data": ["iVBORw0KGgo="]}}
    assert client.post("/completion", json=with_media).status_code == 400


def test_completion_with_tokens_input(client: httpx.Client) -> None:
    tokens = tokens_of(client, PROMPT, add_special=True)
    greedy = {"temperature": 0.0, "n_predict": 8}
    assert isinstance(complete(client, prompt=tokens, **greedy)["content"], str)
    for second in (tokens, PROMPT, {"prompt_string": PROMPT}):
        answers = complete(client, prompt=[tokens, second], **greedy)
        assert len(answers) == 2
        assert answers[0]["content"] == answers[1]["content"]
    mixed = complete(client, prompt=[1, 2, 3, 4, 5, 6, PROMPT, 7, 8, 9, 10, PROMPT], **greedy)
    assert isinstance(mixed["content"], str)
    assert mixed["tokens_evaluated"] == 10 + 2 * len(tokens)


def test_completion_response_fields(client: httpx.Client) -> None:
    assert "generation_settings" in complete(client, n_predict=8, response_fields=[])
    fields = ["content", "generation_settings/n_predict", "prompt"]
    answer = complete(client, n_predict=32, response_fields=fields)
    assert answer.keys() == set(fields)
    assert (answer["generation_settings/n_predict"], answer["prompt"]) == (32, PROMPT)


def test_n_probs(client: httpx.Client) -> None:
    def check(tokens: list[Json]) -> None:
        for token in tokens:
            assert len(token["top_logprobs"]) == 5
            for one in (token, *token["top_logprobs"]):
                assert (type(one["id"]), type(one["token"]), type(one["bytes"])) == (int, str, list)
                assert one["logprob"] <= 0.0

    body = {"n_probs": 5, "temperature": 0.0, "n_predict": 5, "ignore_eos": True}
    whole = complete(client, **body)["completion_probabilities"]
    assert len(whole) == 5
    check(whole)
    *chunks, _ = stream(client, **body)
    check([token for chunk in chunks for token in chunk["completion_probabilities"]])


@pytest.mark.parametrize("by_id", [False, True])
@pytest.mark.parametrize("as_object", [False, True])
def test_logit_bias(client: httpx.Client, by_id: bool, as_object: bool) -> None:
    excluded: list[Any] = tokens_of(client, " " + " ".join(WORDS) + " ") if by_id else [f" {word} " for word in WORDS]
    bias = {str(token): -100 for token in excluded} if as_object else [[token, -100] for token in excluded]
    text = complete(client, prompt="What is the best book", logit_bias=bias, temperature=0.0, n_predict=64)["content"]
    assert not any(f" {word} " in text for word in WORDS)


@pytest.mark.parametrize("ignore_eos", [False, True])
def test_ignore_eos(client: httpx.Client, ignore_eos: bool) -> None:
    answer = complete(client, prompt="Once upon a time", n_predict=8, ignore_eos=ignore_eos, temperature=0.0)
    biases = answer["generation_settings"]["logit_bias"]
    assert [bias["bias"] for bias in biases] == ([None] if ignore_eos else [])


def test_the_context_is_the_limit(client: httpx.Client) -> None:
    n_ctx = client.get("/props").json()["default_generation_settings"]["n_ctx"]
    full = complete(client, prompt=[5] * (n_ctx - 10), n_predict=-1, ignore_eos=True)
    assert (full["timings"]["predicted_n"], full["truncated"]) == (10, True)
    answer = client.post("/completion", json={"prompt": [5] * n_ctx, "n_predict": 64})
    assert answer.status_code == 400
    assert "exceeds the available context size" in answer.json()["error"]["message"]


def test_a_cancelled_request_frees_its_slot(client: httpx.Client, wait_until: Callable[..., Any]) -> None:
    with client.stream("POST", "/completion", json={"prompt": PROMPT, "stream": True, "ignore_eos": True}) as answer:
        next(answer.iter_lines())
    wait_until(lambda: not any(slot["is_processing"] for slot in client.get("/slots").json()), "no slot is in use")


def test_tokenize_and_detokenize(client: httpx.Client) -> None:
    content = "What is the capital of France ?"
    tokens = tokens_of(client, content)
    assert client.post("/detokenize", json={"tokens": tokens}).json()["content"].strip() == content
    pieces = tokens_of(client, "a string with \u5abd and emoji \U0001f917", with_pieces=True)
    assert all(type(token["id"]) is int and token["piece"] for token in pieces)


def test_health_props_and_slots(client: httpx.Client) -> None:
    assert client.get("/health").status_code == 200
    props = client.get("/props").json()
    slots = client.get("/slots").json()
    assert len(slots) == props["total_slots"]
    assert slots[0]["n_ctx"] == props["default_generation_settings"]["n_ctx"]
    assert "params" not in slots[0]


def test_the_web_client_starts(client: httpx.Client) -> None:
    """It requests the properties first, then the models."""
    props = client.get("/props?autoload=false").json()
    assert props["modalities"] == {"vision": False, "audio": False}
    assert props["default_generation_settings"]["params"]["temperature"] == 0.8
    [model] = client.get("/v1/models").json()["data"]
    assert client.get(f"/props?model={model['id']}&autoload=false").json() == props
