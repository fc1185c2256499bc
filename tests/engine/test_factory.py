"""The one place that knows every part: what does not fit together is refused before anything runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.e2e.conftest import write_model, write_tokenizer

from distilgpt2_api.core.config import EngineConfig
from distilgpt2_api.core.errors import ModelFormatError, UnsupportedProcessorError
from distilgpt2_api.core.events import SilentObserver
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.factory import load_engine
from distilgpt2_api.engine.local import run_request
from distilgpt2_api.model.processor import Processor
from distilgpt2_api.settings import Settings

GOLDEN = Path(__file__).parents[1] / "golden" / "plain"


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path: Path) -> None:
    """It would write ids that the model has no row for."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(GOLDEN / name, tmp_path)
    write_tokenizer(tmp_path)
    vocab_size = json.loads((GOLDEN / "config.json").read_text())["vocab_size"]
    config: EngineConfig = Settings(precision="f32", num_threads=1).engine_config()

    with pytest.raises(ModelFormatError, match=rf"has 257 tokens, but the model only {vocab_size}$"):
        load_engine(tmp_path, config, cache_folder=None, observer=SilentObserver(), report=lambda line: None)


@pytest.mark.reported("trial under emulation: nothing loads on arm64 without SVE, after seconds and with a traceback")
def test_a_processor_without_attention_kernels_is_refused_first(tmp_path: Path) -> None:
    """Before the folder is read: no model can be served here."""
    config: EngineConfig = Settings(num_threads=1).engine_config()

    with pytest.raises(UnsupportedProcessorError, match="arm64 without SVE") as refused:
        load_engine(
            tmp_path,
            config,
            cache_folder=None,
            observer=SilentObserver(),
            report=lambda line: None,
            processor=Processor(is_arm64=True),
        )

    assert "\n" not in str(refused.value)
    assert "use x86-64" in str(refused.value)


def test_a_whole_context_fits_however_little_the_cache_may_take(tmp_path: Path) -> None:
    """What the model has positions for is never refused, nor waits for ever, for want of blocks."""
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
