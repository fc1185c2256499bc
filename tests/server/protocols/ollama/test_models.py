"""Ollama's descriptions of the served model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate


def test_tags_list_the_model_under_each_of_its_names(open_client: Callable[..., Any]) -> None:
    client = open_client(served_names=("stories", "team/tales:7b"))
    models = client.get("/api/tags").json()["models"]
    assert [model["model"] for model in models] == ["stories:latest", "team/tales:7b"]
    first = models[0]
    assert first["name"] == "stories:latest"
    assert (first["details"]["family"], first["details"]["quantization_level"]) == ("gpt2", "F32")
    assert datetime.fromisoformat(first["modified_at"]).timestamp() == 1
    assert len(first["digest"]) == 64
    assert client.post("/api/generate", json={"model": first["model"], "prompt": "a"}).status_code == 200


def test_sizes_are_those_of_the_weights(client: Any) -> None:
    """The scripted model's: 257 tokens and 256 positions of width 8, one layer of 4 times the width."""
    num_weights = (257 + 256) * 8 + (12 * 8 * 8 + 13 * 8) + 2 * 8
    model = client.get("/api/tags").json()["models"][0]
    assert (model["size"], model["details"]["parameter_size"]) == (4 * num_weights, "5.0K")
    info = client.post("/api/show", json={"model": "tiny"}).json()["model_info"]
    assert info["general.parameter_count"] == num_weights


def test_the_running_model_is_the_served_one(client: Any, open_client: Callable[..., Any]) -> None:
    [model] = client.get("/api/ps").json()["models"]
    assert (model["model"], model["size_vram"], model["context_length"]) == ("organisation/tiny:latest", 0, 256)
    assert datetime.fromisoformat(model["expires_at"]).year == 9999
    is_loaded = threading.Event()
    loading = open_client(on_load=lambda: is_loaded.wait(20) or None, is_loaded=False)
    assert loading.get("/api/ps").json() == {"models": []}
    assert loading.get("/api/tags").status_code == loading.post("/api/generate", json={}).status_code == 503
    is_loaded.set()


def test_show_describes_the_model(client: Any, open_client: Callable[..., Any]) -> None:
    shown = client.post("/api/show", json={"model": "tiny:latest"}).json()
    assert shown["model_info"]["gpt2.context_length"] == 256
    assert (shown["template"], shown["capabilities"]) == ("", ["completion"])
    assert client.post("/api/show", json={"name": "tiny"}).json() == shown
    template = "{{ messages[0].content }}"
    with_template = open_client(chat_template=ChatTemplate(template, origin="test"))
    assert with_template.post("/api/show", json={}).json()["template"] == template
    assert client.post("/api/show", json={"model": "llama3.2"}).status_code == 404
    assert "verbose" in client.post("/api/show", json={"model": "tiny", "verbose": True}).json()["error"]


def test_the_version_is_this_services(client: Any) -> None:
    assert client.get("/api/version").json() == {"version": client.get("/version").json()["version"]}
    assert client.request("HEAD", "/api/version").status_code == 200
