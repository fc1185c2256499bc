"""`/v1/models`, and the model names that requests may have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def test_models_are_listed_and_described_by_each_name(client: Any) -> None:
    card = {
        "id": "organisation/tiny",
        "object": "model",
        "created": 1,
        "owned_by": "distilgpt2-api",
        "root": "organisation/tiny",
        "max_model_len": 256,
        "generation_config": {},
    }
    assert client.get("/v1/models").json() == {"object": "list", "data": [card]}
    assert client.get("/v1/models/organisation/tiny").json() == card
    assert client.get("/v1/models/tiny").json() == card | {"id": "tiny"}
    missing = client.get("/v1/models/other")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.reported("operators whose model folders are named by a snapshot's hash, on several servers' forums")
def test_the_operator_can_choose_the_names(open_client: Callable[..., Any]) -> None:
    client = open_client(model_name="0f1e2d", served_names=("stories", "distilgpt2"))
    listed = client.get("/v1/models").json()["data"]
    assert [(card["id"], card["root"]) for card in listed] == [("stories", "0f1e2d"), ("distilgpt2", "0f1e2d")]
    assert client.get("/v1/models/distilgpt2").json()["id"] == "distilgpt2"
    for path, name in (("/", "model"), ("/version", "model"), ("/info", "model_id")):
        assert client.get(path).json()[name] == "stories", path
    assert 'served_names="stories,distilgpt2"' in client.get("/metrics").text
    assert [model["name"] for model in client.get("/api/tags").json()["models"]] == [
        "stories:latest",
        "distilgpt2:latest",
    ]
    for model in ("stories", "distilgpt2", None):
        assert client.complete(prompt="a", max_tokens=1, model=model).json()["model"] == "stories"
    for path in ("/v1/models/0f1e2d", "/v1/models/tgi"):
        assert client.get(path).status_code == 404
    refused = client.complete(prompt="a", model="0f1e2d")
    assert refused.status_code == 404
    assert "'stories', 'distilgpt2'" in refused.json()["error"]["message"]


@pytest.mark.reported("InferenceClient, TGI's own client and @huggingface/inference, run unchanged against the server")
@pytest.mark.parametrize("name", ["tgi", "dummy", "", "http://localhost:8000", "https://models.example/v1"])
def test_the_placeholder_names_of_clients_are_accepted(client: Any, name: str) -> None:
    answer = client.complete(prompt="a", max_tokens=1, model=name)
    assert (answer.status_code, answer.json()["model"]) == (200, "organisation/tiny")
    assert client.post("/v1/score", json={"input": "ab", "model": name}).status_code == 200
    assert client.post("/tokenize", json={"prompt": "ab", "model": name}).status_code == 200
