"""The answers are the same on every container engine."""

from __future__ import annotations

from typing import Any

import pytest
from tests.container.engines import Engine
from tests.container.http import complete

REQUEST = {"max_tokens": 40, "temperature": 0.9, "top_p": 0.95, "seed": 20_261_123, "logprobs": 1}


def test_all_engines_give_the_same_answer(every_engine: list[Engine], image: str) -> None:
    """Acceptance 7: the same text and log-probabilities for one seed."""
    answers = {}
    absent = []
    for engine in every_engine:
        if why_not := engine.missing():
            absent.append(f"{engine.name}: {why_not}")
            continue
        engine.load(image)
        with engine.running(image) as service:
            service.wait_until_ready()
            answers[engine.name] = answer(service.port)
    if len(answers) < 2:
        pytest.skip(f"only one engine here; {'; '.join(absent)}")
    first, *others = answers.values()
    assert all(other == first for other in others), answers


def answer(port: int) -> Any:
    completion = complete(port, **REQUEST)
    return completion["choices"], completion["usage"]
