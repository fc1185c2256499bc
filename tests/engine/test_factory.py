"""Builds engines from model folders: parts that do not fit together are refused before anything runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import write_model, write_tokenizer

from distilgpt2_api.core.config import EngineConfig
from distilgpt2_api.core.errors import ModelFormatError, UnsupportedProcessorError
from distilgpt2_api.core.events import SilentObserver
from distilgpt2_api.core.grammar import Grammar, GrammarKind
from distilgpt2_api.core.outputs import FinishReason, SequenceDelta
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.factory import load_engine
from distilgpt2_api.engine.sync import run_request
from distilgpt2_api.settings import Settings

GOLDEN = Path(__file__).parents[1] / "golden" / "plain"


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path: Path) -> None:
    """It would produce ids without an embedding."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(GOLDEN / name, tmp_path)
    write_tokenizer(tmp_path)
    vocab_size = json.loads((GOLDEN / "config.json").read_text())["vocab_size"]
    config: EngineConfig = Settings(precision="f32", num_threads=1).engine_config()

    with pytest.raises(ModelFormatError, match=rf"has 256 tokens, but the model only {vocab_size}$"):
        load_engine(tmp_path, config, cache_folder=None, observer=SilentObserver(), report=lambda line: None)


def test_kernels_that_the_processor_lacks_are_refused_first(tmp_path: Path) -> None:
    """Before the folder is read: no model can be served with them."""
    config: EngineConfig = Settings(num_threads=1, kernels="sve9").engine_config()

    with pytest.raises(
        UnsupportedProcessorError, match=r"kernels 'sve9': this processor runs .*; leave DISTILGPT2_KERN"
    ):
        load_engine(tmp_path, config, cache_folder=None, observer=SilentObserver(), report=lambda line: None)


@pytest.mark.reported("GPT-2 fine-tunes with a [PAD] token without resized embeddings; transformers takes them")
def test_an_added_token_without_an_embedding_is_ignored(tmp_path: Path) -> None:
    """It is encoded like ordinary text, and the log says so."""
    folder = write_model(tmp_path)
    (folder / "added_tokens.json").write_text(json.dumps({"[PAD]": 257}))
    config = Settings(precision="f32", num_threads=1).engine_config()
    reports: list[str] = []
    engine = load_engine(folder, config, cache_folder=None, observer=SilentObserver(), report=reports.append)
    assert engine.tokenizer.encode("[PAD]") == [*b"[PAD]"]
    assert engine.tokenizer.vocab_size == 257
    assert reports == ["the model has 257 tokens, so these tokens of its tokenizer are ignored: '[PAD]'"]
    engine.close()


END, OTHER_END = 256, 65


def name_in_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": [END, OTHER_END]}))


def name_in_generation_config(folder: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [END, OTHER_END]}))


def name_in_tokenizer_config(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "A"}))


def name_in_special_tokens_map(folder: Path) -> None:
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "A", "lstrip": False}}))


@pytest.mark.reported("a chat fine-tune that ends its turns with a token of its own; vLLM stops at every one of these")
@pytest.mark.parametrize(
    "name", [name_in_config, name_in_generation_config, name_in_tokenizer_config, name_in_special_tokens_map]
)
def test_a_text_ends_with_each_end_of_text_that_a_file_names(tmp_path: Path, name: Callable[[Path], None]) -> None:
    """Unless `ignore_eos` is set. The model's first one still separates documents."""
    folder = write_model(tmp_path)
    name(folder)
    config = Settings(precision="f32", num_threads=1).engine_config()
    engine = load_engine(folder, config, cache_folder=None, observer=SilentObserver(), report=lambda line: None)

    def draw(token_id: int, **params: Any) -> SequenceDelta:
        """Generates with a bias towards that token."""
        params = {"max_tokens": 3, "logit_bias": ((token_id, 100.0),), "temperature": 0.0, **params}
        request = GenerationRequest(
            request_id="end", prompt_token_ids=(1,), params=SamplingParams(**params), is_streamed=False
        )
        [delta] = run_request(engine, request)
        return delta

    for token_id in (END, OTHER_END):
        assert (draw(token_id).finish_reason, draw(token_id).token_ids) == (FinishReason.STOP, (token_id,))
        assert draw(token_id, ignore_eos=True).token_ids == (token_id,) * 3
        assert not {END, OTHER_END}.intersection(draw(token_id, min_tokens=3).token_ids)
        grammar = Grammar(GrammarKind.REGEX, "B+")
        assert draw(token_id, grammar=grammar).token_ids == (66, token_id)
        assert draw(token_id, grammar=grammar, ignore_eos=True).token_ids == (66, 66, 66)
    assert engine.config.eos_token_ids == (END, OTHER_END)
    assert engine.tokenizer.end_of_text_id(engine.config) == END
    engine.close()


def test_a_whole_context_fits_with_any_cache_size(tmp_path: Path) -> None:
    """A request within the model's positions is never refused and never waits forever for blocks."""
    settings = Settings(precision="f32", num_threads=1)
    config = replace(settings.engine_config(), kv_cache_bytes=1, prefix_cache_bytes=0)
    folder = write_model(tmp_path, num_positions=80)  # 2.5 blocks
    engine = load_engine(folder, config, cache_folder=None, observer=SilentObserver(), report=lambda line: None)
    request = GenerationRequest(
        request_id="whole",
        prompt_token_ids=(1,) * 78,
        params=SamplingParams(max_tokens=2, ignore_eos=True),
        num_sequences=3,
    )

    deltas = list(run_request(engine, request))
    engine.close()

    assert {delta.index: delta.num_completion_tokens for delta in deltas} == {0: 2, 1: 2, 2: 2}
