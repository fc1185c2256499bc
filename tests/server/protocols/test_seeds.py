"""Seeds of requests in all protocols."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate


@pytest.mark.reported("users of vLLM and llama.cpp: their clients and forms send -1 for a random seed")
@pytest.mark.parametrize("seed", [-1, -2, None])
def test_minus_one_means_no_seed_in_every_protocol(
    open_client: Callable[..., Any], build_runner: Any, seed: int | None
) -> None:
    """The test service then uses seed 7. TGI's protocol refuses other negative seeds."""
    client = open_client(chat_template=ChatTemplate("a", origin="test"), runner=build_runner())
    expected = -2 if seed == -2 else 7
    bodies: dict[str, Any] = {
        "/v1/completions": {"prompt": "a", "max_tokens": 1, "seed": seed},
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1, "seed": seed},
    }
    for path, body in bodies.items():
        assert client.post(path, json=body).status_code == 200
        assert client.scene.runner.plans[-1].rows[0].params.seed == expected, path
    if seed is not None:
        assert client.get(f"/a?max_new_tokens=1&seed={seed}").status_code == 200
        assert client.scene.runner.plans[-1].rows[0].params.seed == expected
    parameters = {"best_of": 2, "do_sample": True, "max_new_tokens": 1, "seed": seed}
    answer = client.post("/generate", json={"inputs": "a", "parameters": parameters})
    assert answer.status_code == (422 if seed == -2 else 200)
