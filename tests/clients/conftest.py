"""A live server of the bundled model, and an independent scorer for it: NumPy and the tokenizers library."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tokenizers
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tests.e2e.conftest import launch, model_folder

__all__ = ["launch", "model_folder"]

TESTS = Path(__file__).parent.parent
MODEL = TESTS.parent / "src" / "distilgpt2_api" / "models" / "storyteller"


class IndependentScorer:
    """The model in float64 and the tokenizers library, without the package under test."""

    def __init__(self, folder: Path) -> None:
        self._model = _load_reference().NumpyGpt2(
            json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
        )
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._logprobs: Callable[[tuple[int, ...]], NDArray[np.float64]] = cache(self._model.logprobs)
        self.end_of_text: int = self._model.config["eos_token_id"]

    def encode(self, text: str) -> list[int]:
        token_ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return token_ids

    def decode(self, token_ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(token_ids))
        return text

    def score(self, context: Sequence[int], continuation: Sequence[int]) -> tuple[float, bool]:
        """Sum of the continuation's log-probabilities, and whether each of its tokens is the most likely one."""
        logprobs = self._logprobs((*context, *continuation[:-1]))[len(context) - 1 :]
        own = logprobs[np.arange(len(continuation)), list(continuation)]
        return float(own.sum()), bool((logprobs.argmax(axis=1) == continuation).all())

    def score_pair(self, context: str, continuation: str) -> tuple[float, bool]:
        """Tokenize both as one text and split after the context. White space at its end is part of the continuation."""
        given = self.encode(context.rstrip())
        return self.score(given, self.encode(context + continuation)[len(given) :])

    def complete(self, prompt: str, num_tokens: int) -> str:
        return self.decode(self._model.greedy(self.encode(prompt), num_tokens))


def _load_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("numpy_gpt2", TESTS / "reference" / "numpy_gpt2.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def scorer() -> IndependentScorer:
    return IndependentScorer(MODEL)


@pytest.fixture(scope="session")
def storyteller(launch: Callable[..., Any]) -> Any:
    """The bundled model in float32."""
    server = launch("serve", model=MODEL)
    server.wait_listening()
    server.wait_ready()
    return server
