"""`distilgpt2-api pull` in a process of its own, with the hub that HF_ENDPOINT names."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Pull = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def pull(hub: Any, tmp_path: Path) -> Pull:
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        settings = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "DISTILGPT2_HOME": str(tmp_path / "home"),
            "DISTILGPT2_CACHE_HOME": str(tmp_path / "cache"),
        }
        bare = {name: value for name, value in os.environ.items() if not name.startswith(("DISTILGPT2_", "HF_"))}
        return subprocess.run(
            [sys.executable, "-m", "distilgpt2_api", "pull", *arguments],
            env=bare | settings | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_a_model_is_fetched_prepared_and_named(pull: Pull, tmp_path: Path) -> None:
    result = pull("distilgpt2", "--precision", "f32")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "serve it: distilgpt2-api serve --model distilbert/distilgpt2\n"
    assert f"distilbert/distilgpt2 is in {tmp_path}/home/models/distilbert--distilgpt2" in result.stderr
    assert f"prepared for f32 in {tmp_path}/cache" in result.stderr
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_an_unwritable_store_is_one_line(pull: Pull, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where a folder should be")
    result = pull("distilgpt2")
    assert result.returncode == 1
    assert "error: distilgpt2 can't be stored: " in result.stderr
    assert "Traceback" not in result.stderr


def test_an_offline_machine_is_told_how_to_go_online(pull: Pull) -> None:
    result = pull("distilgpt2", HF_HUB_OFFLINE="1")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == ("error: HF_HUB_OFFLINE is set; to fetch distilgpt2 all the same: set HF_HUB_OFFLINE=0\n")


def test_a_name_that_can_not_be_one_is_one_line(pull: Pull) -> None:
    assert pull("../../etc").stderr == "error: '../../etc' is no name of a model: write NAME or ORGANISATION/NAME\n"


def test_without_the_library_it_says_what_to_install(pull: Pull, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "huggingface_hub.py").write_text("raise ModuleNotFoundError(name='huggingface_hub')")
    result = pull("distilgpt2", PYTHONPATH=str(blocked))
    assert result.returncode == 1
    assert result.stderr.startswith("error: pull needs huggingface_hub, which is not installed: pip install")
