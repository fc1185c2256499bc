"""The register of sampling parameters: a line in it gives the parameter to every entry point."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.core.params import BEAM_SEARCH_PARAMETERS, MAX_COUNT, PARAMETERS, PLAIN_PARAMETERS, SamplingParams

PACKAGE = Path(__file__).parents[2] / "src" / "distilgpt2_api"
ANCHOR = "    temperature: float = "
LINE = '    zest: float = _number(0.25, "Adds zest to the draw.", 0.125, 8, edits=True)\n'
PROGRAM = """
import json
from click.testing import CliRunner
from distilgpt2_api.cli.api_reference.page import api_page
from distilgpt2_api.cli.commands.generate import command
from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.sampling_defaults import NO_DEFAULTS, SamplingDefaults
from distilgpt2_api.engine.validation import check_plain_params
from distilgpt2_api.server.app import build_routes
from distilgpt2_api.server.generation.beam_options import _unsupported_fields
from distilgpt2_api.server.generation.sampling_params import plain_params
from distilgpt2_api.server.pages.playground import ASSETS
from distilgpt2_api.server.protocols.openai.chat.schema import parse_chat_request
from distilgpt2_api.server.protocols.openai.completions.schema import CompletionRequest
from distilgpt2_api.server.schema.validation import parse_body
from distilgpt2_api.core.config import Activation, ModelConfig

config = ModelConfig(
    vocab_size=300, num_positions=64, num_layers=1, num_heads=1, width=8, inner_width=8,
    activation=Activation.RELU, layer_norm_epsilon=1e-5, has_tied_embeddings=True, is_attention_scaled=True,
    is_attention_scaled_by_layer=False, bos_token_id=None, eos_token_ids=(),
)

def refusal(call):
    try:
        call()
    except InvalidRequestError as error:
        return [error.param, str(error)]

completion = parse_body(CompletionRequest, {"prompt": "a", "zest": 2})
chat = parse_chat_request({"messages": [{"role": "user", "content": "a"}], "zest": 4})
print(json.dumps({
    "completion": plain_params(completion, config, NO_DEFAULTS)["zest"],
    "chat": plain_params(chat, config, SamplingDefaults.parse({"zest": 3}))["zest"],
    "absent": plain_params(parse_body(CompletionRequest, {"prompt": "a"}), config, NO_DEFAULTS)["zest"],
    "bounds": refusal(lambda: parse_body(CompletionRequest, {"prompt": "a", "zest": 9})),
    "program": refusal(lambda: check_plain_params({"zest": 9})),
    "edits": [SamplingParams().has_logits_processors, SamplingParams(zest=2).has_logits_processors],
    "beams": _unsupported_fields(SamplingParams(zest=2)),
    "help": CliRunner().invoke(command, ["--help"]).output,
    "page": api_page(build_routes()),
    "playground": ASSETS["register.js"].decode(),
}))
"""


def test_a_parameter_is_added_in_one_place(tmp_path: Path) -> None:
    """In a copy of the package with one more line in the register."""
    shutil.copytree(PACKAGE, tmp_path / "distilgpt2_api", ignore=shutil.ignore_patterns("__pycache__", "models"))
    register = tmp_path / "distilgpt2_api" / "core" / "params.py"
    source = register.read_text(encoding="utf-8")
    assert source.count(ANCHOR) == 1
    register.write_text(source.replace(ANCHOR, LINE + ANCHOR), encoding="utf-8")

    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )

    found = json.loads(result.stdout)
    assert (found["completion"], found["chat"], found["absent"]) == (2.0, 4.0, 0.25)
    assert found["bounds"] == ["zest", "zest: input should be less than or equal to 8"]
    assert found["program"] == ["zest", "zest is 9; it must be a number from 0.125 to 8"]
    assert found["edits"] == [False, True]
    assert found["beams"] == ["zest"]
    assert "--zest FLOAT RANGE" in found["help"]
    assert "Adds zest to the draw." in found["help"]
    assert found["page"].count("| `zest` |  | number from 0.125 to 8 | `0.25` | Adds zest to the draw. |") == 2
    assert (
        '"zest":{"min":0.125,"max":8,"step":0.01,"neutral":0.25,"help":"Adds zest to the draw."}' in found["playground"]
    )


def test_only_values_that_are_not_neutral_edit_logits() -> None:
    assert not SamplingParams().has_logits_processors
    assert SamplingParams(logit_bias=((1, 2.0),)).has_logits_processors
    assert not SamplingParams(top_p=0.5, top_k=3, min_p=0.1, typical_p=0.5).has_logits_processors


@pytest.mark.parametrize(
    ("name", "words", "allowed", "refused"),
    [
        ("temperature", "a number from 0 to 2", [0, 2.0], [-0.001, 2.001, float("nan"), float("inf"), "1", None, True]),
        ("typical_p", "a number above 0 to 1", [1e-9, 1], [0, -1, 1.5, float("nan")]),
        (
            "repeat_last_n",
            "a whole number from -1 to 2.14748e+09",
            [-1, MAX_COUNT],
            [-2, MAX_COUNT + 1, 1.5, "1", False],
        ),
        ("ignore_eos", "true or false", [True, False], [0, 1, "true", None]),
    ],
)
def test_a_parameters_type_and_bounds(name: str, words: str, allowed: list[Any], refused: list[Any]) -> None:
    entry = PLAIN_PARAMETERS[name]

    assert entry.allowed == words
    assert [entry.allows(value) for value in allowed + refused] == [True] * len(allowed) + [False] * len(refused)


def test_beam_search_parameters_exist() -> None:
    assert {item.name for item in PARAMETERS} >= BEAM_SEARCH_PARAMETERS
    assert "temperature" not in BEAM_SEARCH_PARAMETERS
