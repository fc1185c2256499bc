"""`TextGenerator` on a tiny random model."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import write_model

from distilgpt2_api.core.errors import InvalidRequestError, ModelNotFoundError
from distilgpt2_api.text_generation import TextGenerator

NUM_POSITIONS = 64
Opener = Callable[..., TextGenerator]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("tiny"), num_positions=NUM_POSITIONS)


@pytest.fixture
def open_generator(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    monkeypatch.setenv("DISTILGPT2_PRECISION", "f32")
    monkeypatch.setenv("DISTILGPT2_NUM_THREADS", "1")
    monkeypatch.setenv("DISTILGPT2_CACHE_HOME", str(tmp_path))
    opened: list[TextGenerator] = []

    def open_one(*, model: Path = folder, seed: int | None = None) -> TextGenerator:
        opened.append(TextGenerator(model, seed=seed))
        return opened[-1]

    yield open_one
    for generator in opened:
        generator.close()


def test_each_text_is_the_prompt_and_its_completion(open_generator: Opener) -> None:
    texts = open_generator().generate("once", max_new_tokens=8, num_return_sequences=3)
    assert len(texts) == 3
    assert all(text.startswith("once") and len(text) > 4 for text in texts)


def test_a_seed_gives_the_same_texts_in_the_same_order(open_generator: Opener) -> None:
    first, again, other = (open_generator(seed=seed) for seed in (1, 1, 2))
    texts = [first.generate("once"), first.generate("once")]
    assert texts == [again.generate("once"), again.generate("once")]
    assert texts[0] != texts[1]
    assert other.generate("once") != texts[0]


@pytest.mark.reported("users of vLLM and llama.cpp, where -1 means a random seed")
def test_minus_one_is_no_seed(open_generator: Opener) -> None:
    assert open_generator(seed=-1).generate("once") != open_generator(seed=-1).generate("once")


def test_greedy_sampling_needs_no_seed(open_generator: Opener) -> None:
    generator = open_generator()
    assert generator.generate("once", top_k=1) == generator.generate("once", temperature=0)


def test_an_empty_prompt_starts_from_the_end_of_text(open_generator: Opener) -> None:
    assert open_generator(seed=1).generate("", max_new_tokens=5) != [""]


def test_threads_can_share_a_generator(open_generator: Opener) -> None:
    generator = open_generator()
    alone = generator.generate("once", temperature=0)
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda _: generator.generate("once", temperature=0), range(8)))
    assert together == [alone] * 8


def test_a_missing_model_is_an_error_at_construction() -> None:
    with pytest.raises(ModelNotFoundError, match="/nowhere"):
        TextGenerator("/nowhere")


def test_it_can_not_be_used_after_its_with_block(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISTILGPT2_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("DISTILGPT2_PRECISION", "f32")
    with TextGenerator(folder) as generator:
        assert generator.generate("once", max_new_tokens=1)
    with pytest.raises(AssertionError):
        generator.generate("once", max_new_tokens=1)


def test_an_empty_prompt_starts_from_the_tokenizers_end_of_text_if_the_model_has_none(
    folder: Path, tmp_path: Path, open_generator: Opener
) -> None:
    """As in the service."""
    nameless = shutil.copytree(folder, tmp_path / "nameless")
    config = json.loads((nameless / "config.json").read_text())
    (nameless / "config.json").write_text(json.dumps({**config, "eos_token_id": None}))
    assert open_generator(model=nameless).generate("", max_new_tokens=3) != [""]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", -1),
        ("max_new_tokens", NUM_POSITIONS),
        ("num_return_sequences", 0),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("top_k", -1),
        ("top_p", 1.01),
        ("top_p", -0.1),
        ("temperature", "0.5"),
        ("top_k", 1.5),
        ("max_new_tokens", "3"),
        ("num_return_sequences", None),
    ],
)
def test_a_bad_value_is_refused_by_name_and_the_next_call_works(open_generator: Opener, name: str, value: Any) -> None:
    generator = open_generator()
    with pytest.raises(InvalidRequestError, match=name) as refused:
        generator.generate("once", **{name: value})
    assert refused.value.param == name
    assert generator.generate("once", max_new_tokens=1)
