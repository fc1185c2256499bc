"""The answers are the same on every container engine, with and without a shell in the image."""

from __future__ import annotations

from typing import Any

import pytest
from tests.container.engines import Engine
from tests.container.http import complete

REQUEST = {"max_tokens": 40, "temperature": 0.9, "top_p": 0.95, "seed": 20_261_123, "logprobs": 1}


def test_all_engines_give_the_same_answer(every_engine: list[Engine], image: str, hardened_image: str) -> None:
    """Acceptance 7: the same text and log-probabilities for one seed."""
    answers = {}
    absent = []
    for engine in every_engine:
        if why_not := engine.missing():
            absent.append(f"{engine.name}: {why_not}")
            continue
        for name in (image, hardened_image):
            engine.load(name)
            with engine.running(name) as service:
                service.wait_until_ready()
                answers[engine.name, name] = answer(service.port)
    if len(absent) == len(every_engine):
        pytest.skip("; ".join(absent))
    first, *others = answers.values()
    assert all(other == first for other in others), answers


def answer(port: int) -> Any:
    completion = complete(port, **REQUEST)
    return completion["choices"], completion["usage"]
