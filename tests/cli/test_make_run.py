"""`make run`: the commands that it starts, with a model's name and without."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "commands"),
    [
        ([], ["exec .venv/bin/distilgpt2-api serve"]),
        (
            ["MODEL=distilgpt2"],
            [
                '.venv/bin/distilgpt2-api pull --if-missing "distilgpt2"',
                'exec .venv/bin/distilgpt2-api serve --model "distilgpt2"',
            ],
        ),
        (
            ["MODEL=./my model"],
            [
                '.venv/bin/distilgpt2-api pull --if-missing "./my model"',
                'exec .venv/bin/distilgpt2-api serve --model "./my model"',
            ],
        ),
    ],
)
def test_make_run_pulls_a_named_model_if_it_is_missing_and_serves_it(arguments: list[str], commands: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in {"MODEL", "MAKEFLAGS"}}
    result = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--assume-old=.venv/installed", "run", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.strip() for line in result.stdout.splitlines() if line.strip()] == commands
