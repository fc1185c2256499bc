"""`/v1/score` over a real socket, compared with an independent GPT-2 in NumPy."""

from __future__ import annotations

import importlib.util
import json
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file

END_OF_TEXT = 256


@pytest.fixture(scope="module")
def reference(model_folder: Path) -> Any:
    path = Path(__file__).parents[1] / "reference" / "numpy_gpt2.py"
    spec = importlib.util.spec_from_file_location("numpy_gpt2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = json.loads((model_folder / "config.json").read_text())
    return module.NumpyGpt2(config, load_file(model_folder / "model.safetensors"))


def score(server: Any, value: object) -> list[dict[str, Any]]:
    answer = httpx.post(f"{server.url}/v1/score", json={"input": value, "token_logprobs": True}, timeout=30)
    assert answer.status_code == 200, answer.text
    data: list[dict[str, Any]] = answer.json()["data"]
    return data


def expected(reference: Any, context: list[int], scored: list[int]) -> tuple[list[float], bool]:
    logprobs = reference.logprobs([*context, *scored])[len(context) - 1 : -1]
    own = logprobs[np.arange(len(scored)), scored]
    return own.tolist(), bool((logprobs.argmax(axis=1) == scored).all())


def test_every_value_is_the_reference_one(server: Any, reference: Any) -> None:
    """Texts and pairs of many lengths, in one request and thus in the same steps."""
    draw = np.random.default_rng(1)
    texts = [bytes(draw.integers(97, 123, length).tolist()).decode() for length in (1, 2, 31, 32, 33, 300)]
    pairs = [(text, text[::-1]) for text in texts]
    greedy = [10, 20, 30]
    likeliest = reference.greedy(greedy, 5)
    cases = [([END_OF_TEXT], list(text.encode())) for text in texts]
    cases += [(list(context.encode()), list(text.encode())) for context, text in pairs]
    cases += [(greedy, likeliest), (greedy, [*likeliest[:-1], (likeliest[-1] + 1) % 256])]

    data = score(
        server,
        [
            *texts,
            *({"context": context, "continuation": text} for context, text in pairs),
            *({"context": context, "continuation": scored} for context, scored in cases[-2:]),
        ],
    )

    for item, (context, scored) in zip(data, cases, strict=True):
        values, is_greedy = expected(reference, context, scored)
        assert item["token_ids"] == scored
        assert item["token_logprobs"] == pytest.approx(values, abs=1e-4)
        assert item["logprob"] == pytest.approx(sum(item["token_logprobs"]), abs=1e-9)
        assert item["perplexity"] == pytest.approx(np.exp(-np.mean(values)), rel=1e-4)
        assert item["is_greedy"] is is_greedy
    assert [item["is_greedy"] for item in data[-2:]] == [True, False]


def test_a_context_from_the_prefix_cache_scores_the_same(server: Any) -> None:
    pair = {"context": "once upon a time " * 20, "continuation": "there was a king"}
    first, again = (score(server, pair)[0]["token_logprobs"] for _ in range(2))
    assert again == pytest.approx(first, abs=1e-5)


def test_scores_and_an_echo_s_log_probabilities_agree(server: Any) -> None:
    text = "that was the end"
    echoed = server.complete(prompt=text, echo=True, max_tokens=0, logprobs=1).json()["choices"][0]["logprobs"]
    pair = {"context": text[:1], "continuation": text[1:]}
    assert score(server, pair)[0]["token_logprobs"] == pytest.approx(echoed["token_logprobs"][1:], abs=1e-5)


def test_a_hang_up_ends_the_scoring(server: Any, wait_until: Any) -> None:
    """All of its texts, including queued ones."""
    num_texts = 30
    before = server.metric("distilgpt2_sequences_total")
    aborted_before = server.metric("distilgpt2_sequences_total", finish_reason="abort")
    body = json.dumps({"input": ["a" * 16_000] * num_texts}).encode()
    head = "POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=30)) as connection:
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: server.metric("distilgpt2_running_sequences") > 0, "the scoring has begun")
    wait_until(lambda: server.metric("distilgpt2_sequences_total") == before + num_texts, "all texts have ended")
    assert server.metric("distilgpt2_sequences_total", finish_reason="abort") > aborted_before
