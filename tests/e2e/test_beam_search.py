"""Beam search over HTTP, on a model with reference answers from `transformers`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

GOLDEN = Path(__file__).parent.parent / "golden" / "plain"


@pytest.fixture(scope="module")
def golden_server(launch: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Serves the golden model, with a letter for each of its first tokens."""
    folder = tmp_path_factory.mktemp("golden")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(GOLDEN / name, folder)
    letters = [chr(code) for code in range(33, 33 + 90)]
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    server = launch(model=folder)
    server.wait_listening()
    server.wait_ready()
    return server


def test_sequences_are_those_of_transformers(golden_server: Any) -> None:
    """Token ids exactly, scores within 1e-4, for every early stopping and length penalty."""
    for golden in json.loads((GOLDEN / "beams.json").read_text()):
        answer = golden_server.complete(
            prompt=golden["prompt"],
            use_beam_search=True,
            best_of=golden["num_beams"],
            n=golden["num_return_sequences"],
            length_penalty=golden["length_penalty"],
            early_stopping=golden["early_stopping"],
            max_tokens=golden["max_new_tokens"],
            min_tokens=golden.get("min_new_tokens"),
            stop_token_ids=golden["ending"],
            logprobs=0,
            return_token_ids=True,
        )
        assert answer.status_code == 200, answer.text
        choices = answer.json()["choices"]
        assert [choice["token_ids"] for choice in choices] == golden["completions"]
        scores = [
            sum(choice["logprobs"]["token_logprobs"]) / len(choice["token_ids"]) ** golden["length_penalty"]
            for choice in choices
        ]
        assert scores == pytest.approx(golden["scores"], rel=1e-6, abs=1e-4)
