"""A model that doesn't fit the memory is refused in one line, before it is loaded if that is known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.core.config import ModelConfig, Precision
from distilgpt2_api.core.errors import ModelFormatError, ModelMemoryError
from distilgpt2_api.model.hub.store import BUNDLED_FOLDER
from distilgpt2_api.model.memory_check import check_memory, exhaustion_in_one_line

CONFIG = ModelConfig(vocab_size=1000, num_positions=640, num_layers=2, num_heads=2, width=64, inner_width=256)
FOLDER = Path("model")


def test_a_cache_that_a_setting_made_too_large_names_the_setting() -> None:
    with pytest.raises(ModelMemoryError, match=r"KV cache of 976 MiB .* 512 MiB of memory; lower DISTILGPT2_KV_CACHE"):
        check_memory(FOLDER, CONFIG, Precision.F32, num_blocks=31_250, min_blocks=20, limit_bytes=512 << 20)


def test_a_context_that_no_setting_makes_smaller_names_the_config() -> None:
    """A small file can ask for a million positions in a thousand layers."""
    config = ModelConfig(vocab_size=9, num_positions=10**6, num_layers=1000, num_heads=1, width=8, inner_width=8)

    with pytest.raises(ModelMemoryError, match="one context, 1000000 tokens by its config"):
        check_memory(FOLDER, config, Precision.F32, num_blocks=31_250, min_blocks=31_250, limit_bytes=8 << 30)


def test_a_model_that_fits_passes() -> None:
    check_memory(FOLDER, CONFIG, Precision.INT8, num_blocks=64, min_blocks=20, limit_bytes=64 << 20)


def test_exhausted_memory_becomes_one_line() -> None:
    with pytest.raises(ModelMemoryError) as raised, exhaustion_in_one_line(FOLDER):
        raise MemoryError

    assert str(raised.value) == "model: not enough memory to load the model"


def test_a_start_without_memory_ends_with_one_line() -> None:
    """In a separate process, with less address space than the KV cache needs."""
    program = f"""
import resource, sys
import distilgpt2_api.model.runner
from distilgpt2_api.cli import main
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (52 << 20),) * 2)
sys.argv = ["distilgpt2-api", "generate", "--model", {str(BUNDLED_FOLDER)!r}, "Once"]
main()
"""
    # Coverage measurement takes memory too.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "not enough memory" in line


def test_finite_weights_that_overflow_are_refused(make_model: Any, drive: Any) -> None:
    """Every weight is finite, but the results are not."""
    model = make_model()
    model.tensors["h.0.mlp.c_proj.weight"][:] = 3e38
    model.tensors["h.0.mlp.c_fc.bias"][:] = 1e30
    model.save()

    with pytest.raises(ModelFormatError, match="computes NaN or infinity"):
        drive(model.path)


def test_the_config_is_compared_with_the_files_before_its_layers_are_walked(make_model: Any, drive: Any) -> None:
    model = make_model()
    (model.path / "config.json").write_text(json.dumps(model.config | {"n_layer": 1000}))

    with pytest.raises(ModelFormatError, match=r"config\.json: describes"):
        drive(model.path)
