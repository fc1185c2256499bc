"""An empty environment, commands in this process and in their own, and a model that loads fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from distilgpt2_api.cli import main

WIDTH = 16


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings except two temporary folders."""
    for name in os.environ:
        if name in {"HOST", "PORT"} or name.startswith("DISTILGPT2_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DISTILGPT2_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DISTILGPT2_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def invoke() -> Callable[..., Result]:
    """`invoke("config", "--markdown", input=…)` runs the command in this process."""

    def run(*arguments: str, **options: str) -> Result:
        return CliRunner().invoke(main, arguments, prog_name="distilgpt2-api", **options)  # type: ignore[arg-type]  # input=

    return run


@pytest.fixture
def start() -> Callable[..., subprocess.Popen[str]]:
    """Starts the command in its own process, with both outputs in pipes."""

    def run(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "distilgpt2_api", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # its own process group, as in a shell
        )

    return run


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a GPT-2 of one layer and random weights; each byte is a token."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: index for index, text in enumerate(["<|endoftext|>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"model_type": "gpt2", "vocab_size": 257, "n_positions": 64, "n_embd": WIDTH, "n_layer": 1, "n_head": 2}
    (folder / "config.json").write_text(json.dumps(config | {"bos_token_id": 0, "eos_token_id": 0}))
    shapes = {
        "wte.weight": (257, WIDTH),
        "wpe.weight": (64, WIDTH),
        "h.0.attn.c_attn.weight": (WIDTH, 3 * WIDTH),
        "h.0.attn.c_attn.bias": (3 * WIDTH,),
        "h.0.attn.c_proj.weight": (WIDTH, WIDTH),
        "h.0.attn.c_proj.bias": (WIDTH,),
        "h.0.mlp.c_fc.weight": (WIDTH, 4 * WIDTH),
        "h.0.mlp.c_fc.bias": (4 * WIDTH,),
        "h.0.mlp.c_proj.weight": (4 * WIDTH, WIDTH),
        "h.0.mlp.c_proj.bias": (WIDTH,),
        **{f"{name}.{kind}": (WIDTH,) for name in ("h.0.ln_1", "h.0.ln_2", "ln_f") for kind in ("weight", "bias")},
    }
    draw = np.random.default_rng(0)
    tensors = {name: draw.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    return folder
