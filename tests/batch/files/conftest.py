"""Inputs in a temporary folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from distilgpt2_api.batch.files.input_file import InputFile

PARAMETERS = ("prompt", "max_tokens", "stop", "seed", "n", "stream")


@pytest.fixture
def open_input(tmp_path: Path) -> Callable[..., InputFile]:
    """`open_input(content, name="in.csv")` creates and opens an input with that content."""

    def opened(content: bytes, *, name: str = "in.jsonl", max_line_bytes: int = 1000) -> InputFile:
        (tmp_path / name).write_bytes(content)
        return InputFile(tmp_path / name, max_line_bytes=max_line_bytes, parameters=PARAMETERS)

    return opened


@pytest.fixture
def requests() -> Callable[[Sequence[str]], bytes]:
    """Lines that request a completion of each prompt; the custom id is the prompt."""

    def lines(prompts: Sequence[str]) -> bytes:
        fields = {"method": "POST", "url": "/v1/completions"}
        return b"".join(
            json.dumps({"custom_id": prompt, **fields, "body": {"prompt": prompt}}).encode() + b"\n"
            for prompt in prompts
        )

    return lines
