"""Changes to a model's files while it is served affect the next start, and no answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

from distilgpt2_api.core.config import Precision
from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.compilation import compile_model
from distilgpt2_api.model.weights.compiled_file import read_compiled_model
from distilgpt2_api.model.weights.safetensors_file import SafetensorsFile
from distilgpt2_api.model.weights.weight_files import compiled_name

PROGRAM = """
import os, sys
from pathlib import Path
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow, StepPlan
from distilgpt2_api.model.runner import Runner
from distilgpt2_api.settings import Settings

folder, precision, cache, change, name = sys.argv[1:]
runner = Runner.load(Path(folder), Settings(precision=precision, num_threads=1).engine_config(), num_blocks=8,
                     cache_folder=Path(cache) if cache else None, report=print)

def score(num_tokens):
    row = PlanRow(sequence_id=0, token_ids=[(7 * n) % 131 for n in range(num_tokens)], num_prompt_tokens=num_tokens,
                  num_computed_tokens=0, num_new_tokens=num_tokens, block_ids=[0, 1, 2, 3],
                  params=SamplingParams(temperature=0.0), seed=0, is_sampling=True, num_prompt_logprobs=0)
    result = runner.run(StepPlan(rows=[row])).rows[0]
    return [result.token_id, *(entry.logprob for entry in result.prompt_logprobs)]

lengths = (1, 3, 33, 90)
before = [score(length) for length in lengths]
path = Path(folder, name)
if change == "truncated":
    os.truncate(path, 0)
else:
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))
print("same" if [score(length) for length in lengths] == before else "other")
"""


def serve_while(folder: Path, precision: str, cache: str, change: str, name: str) -> tuple[int, str]:
    """Exit status and output of a process that scores, changes the file under itself, and scores the same again."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), precision, cache, change, name],
        capture_output=True,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("precision", "cache", "change"),
    [
        ("f32", "", "truncated"),
        ("f32", "", "rewritten"),
        ("int8", "cache", "truncated"),
    ],
)
def test_weights_may_change_under_a_running_model(
    make_model: Any, tmp_path: Path, precision: str, cache: str, change: str
) -> None:
    """With a cache of compiled weights and without: no SIGBUS, and the same numbers."""
    folder = make_model().path
    place = str(tmp_path / cache) if cache else ""

    assert serve_while(folder, precision, place, change, "model.safetensors") == (0, "same\n")


def test_a_writable_compiled_model_may_change(make_model: Any, tmp_path: Path) -> None:
    compile_model(make_model().path, tmp_path / "compiled", Precision.F32)

    assert serve_while(tmp_path / "compiled", "f32", "", "truncated", compiled_name(Precision.F32)) == (0, "same\n")


def test_a_read_only_compiled_model_is_mapped(make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an image: its memory is the page cache."""
    folder = tmp_path / "compiled"
    compile_model(make_model().path, folder, Precision.INT8)
    config = read_model_config(folder)
    own = read_compiled_model(folder, config, Precision.INT8)
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    mapped = read_compiled_model(folder, config, Precision.INT8)

    assert own is not None
    assert own.file is None
    assert mapped is not None
    assert mapped.file is not None


def test_a_file_that_is_written_to_while_it_is_read_is_refused(make_model: Any) -> None:
    """It would be half of one model and half of another."""
    model = make_model()
    path = model.path / "model.safetensors"
    file = SafetensorsFile(path)
    file.check_unchanged()

    path.rename(path.with_name("old"))  # replaced as a whole: the open file is unchanged
    save_file(model.tensors, path)
    file.check_unchanged()

    os.utime(path.with_name("old"), (1, 1))
    with pytest.raises(ModelFormatError, match="changed while it was read"):
        file.check_unchanged()

    os.truncate(path.with_name("old"), 2000)
    with pytest.raises(ModelFormatError, match="became shorter while it was read"):
        file.read("wte.weight")
