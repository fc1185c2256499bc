"""Builders: model folders of any GPT-2 shape, their NumPy reference, and a driver for the runner."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tests.scripted_runner import ENGINE_CONFIG

from distilgpt2_api.core.config import BLOCK_SIZE, Precision
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow, RowResult, StepPlan
from distilgpt2_api.model.runner import Runner

Tensors = dict[str, NDArray[Any]]


def _load_reference() -> ModuleType:
    path = Path(__file__).parent.parent / "reference" / "numpy_gpt2.py"
    spec = importlib.util.spec_from_file_location("numpy_gpt2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NUMPY_GPT2 = _load_reference()
SEQUENCE_IDS = count()

SMALL_CONFIG: dict[str, Any] = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "vocab_size": 131,
    "n_positions": 128,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "activation_function": "gelu_new",
    "bos_token_id": 0,
    "eos_token_id": 0,
}


@dataclass(frozen=True)
class ModelFolder:
    path: Path
    config: dict[str, Any]
    tensors: Tensors
    """By GPT2LMHeadModel's names, without `transformer.`."""

    @property
    def reference(self) -> Any:
        return NUMPY_GPT2.NumpyGpt2(self.config, self.tensors)

    def save(self, tensors: Mapping[str, NDArray[Any]] | None = None, file_name: str = "model.safetensors") -> None:
        save_file({**(self.tensors if tensors is None else tensors)}, self.path / file_name)

    def save_config(self, **options: Any) -> None:
        (self.path / "config.json").write_text(json.dumps(self.config | options))


def random_tensors(config: dict[str, Any], seed: int = 0) -> Tensors:
    """Large enough that attention, norms and biases all influence the likeliest token."""
    draw = np.random.default_rng(seed)
    width, inner = config["n_embd"], config.get("n_inner") or 4 * config["n_embd"]

    def normal(*shape: int, std: float, mean: float = 0.0) -> NDArray[np.float32]:
        return (mean + std * draw.standard_normal(shape)).astype(np.float32)

    def norm(name: str) -> Tensors:
        return {f"{name}.weight": normal(width, std=0.2, mean=1), f"{name}.bias": normal(width, std=0.1)}

    def conv1d(name: str, num_in: int, num_out: int) -> Tensors:
        std = 1.5 / num_in**0.5
        return {f"{name}.weight": normal(num_in, num_out, std=std), f"{name}.bias": normal(num_out, std=0.1)}

    tensors = {
        "wte.weight": normal(config["vocab_size"], width, std=0.4),
        "wpe.weight": normal(config["n_positions"], width, std=0.2),
    }
    for layer in range(config["n_layer"]):
        name = f"h.{layer}"
        tensors |= norm(f"{name}.ln_1") | norm(f"{name}.ln_2")
        tensors |= conv1d(f"{name}.attn.c_attn", width, 3 * width) | conv1d(f"{name}.attn.c_proj", width, width)
        tensors |= conv1d(f"{name}.mlp.c_fc", width, inner) | conv1d(f"{name}.mlp.c_proj", inner, width)
    tensors |= norm("ln_f")
    if not config.get("tie_word_embeddings", True):
        tensors["lm_head.weight"] = normal(config["vocab_size"], width, std=0.4)
    return tensors


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., ModelFolder]:
    """`make_model(n_layer=1, …)`: a new folder with config.json and model.safetensors, float32."""
    folders = iter(tmp_path / f"model-{index}" for index in range(1000))

    def make(**options: Any) -> ModelFolder:
        folder = next(folders)
        folder.mkdir()
        config = SMALL_CONFIG | options
        model = ModelFolder(folder, config, random_tensors(config))
        model.save_config()
        model.save()
        return model

    return make


@dataclass
class Drive:
    """Drives a runner step by step, as the scheduler does."""

    runner: Runner
    reports: list[str] = field(default_factory=list)

    def row(self, token_ids: Sequence[int], begin: int, end: int, block_ids: Sequence[int], **options: Any) -> PlanRow:
        """Computes `token_ids[begin:end]`; draws, greedily, if that is all of them."""
        return PlanRow(
            **{
                "sequence_id": next(SEQUENCE_IDS),
                "token_ids": token_ids,
                "num_prompt_tokens": len(token_ids),
                "num_computed_tokens": begin,
                "num_new_tokens": end - begin,
                "block_ids": block_ids,
                "params": SamplingParams(temperature=0.0),
                "seed": 0,
                "is_sampling": end == len(token_ids),
                **options,
            }
        )

    def step(self, *rows: PlanRow) -> Sequence[RowResult]:
        return self.runner.run(StepPlan(rows=rows)).rows

    def greedy(
        self, prompt: Sequence[int], num_tokens: int, block_ids: Sequence[int] = (0, 1, 2, 3), chunk: int = 1000
    ) -> list[int]:
        """The likeliest continuation, the prompt in chunks, then a token a step."""
        token_ids, begin = list(prompt), 0
        while len(token_ids) < len(prompt) + num_tokens:
            end = min(len(token_ids), begin + chunk)
            (result,) = self.step(self.row(token_ids, begin, end, block_ids))
            begin = end
            if result.token_id is not None:
                token_ids.append(result.token_id)
        return token_ids[len(prompt) :]

    def logprobs(
        self, token_ids: Sequence[int], block_ids: Sequence[int] = (0, 1, 2, 3), chunk: int = 1000
    ) -> NDArray[np.float64]:
        """(S - 1, V): of every token at every position but the first, from the prompt's log-probabilities."""
        vocab_size = self.runner.config.vocab_size
        rows: list[NDArray[np.float64]] = []
        for begin in range(0, len(token_ids), chunk):
            end = min(len(token_ids), begin + chunk)
            scoring = self.row(token_ids, begin, end, block_ids, is_sampling=False, num_prompt_logprobs=vocab_size)
            for entry in self.step(scoring)[0].prompt_logprobs:
                whole = np.full(vocab_size, np.nan)
                for token_id, logprob in entry.top:
                    whole[token_id] = logprob
                assert whole[entry.token_id] == entry.logprob
                assert entry.token_id == token_ids[len(rows) + 1]
                rows.append(whole)
        return np.array(rows)


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Callable[..., Drive]]:
    """`drive(folder, precision="f32", …)`: a loaded runner with its driver, closed at the end."""
    with ExitStack() as stack:

        def load(folder: Path, precision: str = "f32", **options: Any) -> Drive:
            reports: list[str] = []
            config = replace(ENGINE_CONFIG, precision=Precision(precision))
            arguments = {"num_blocks": 4, "cache_folder": None} | options
            runner = Runner.load(folder, config, report=reports.append, **arguments)
            stack.enter_context(closing(runner))
            return Drive(runner, reports)

        yield load


@pytest.fixture
def num_blocks_for() -> Callable[[int], int]:
    return lambda num_tokens: -(-num_tokens // BLOCK_SIZE)
