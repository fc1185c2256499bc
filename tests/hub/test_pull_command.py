"""`distilgpt2-api pull` in a separate process, with the hub that HF_ENDPOINT names."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.model.hub.store import BUNDLED_FOLDER

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


@pytest.mark.reported("a newcomer: the cache could not be written, and the next line said that it had been")
def test_weights_that_could_not_be_stored_are_not_reported_as_prepared(pull: Pull, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    result = pull("distilgpt2")
    assert result.returncode == 0, result.stderr
    assert "can't cache the compiled weights, so the next start compiles them again: " in result.stderr
    assert "prepared for" not in result.stderr
    assert f"distilbert/distilgpt2 is in {tmp_path}/home/models/distilbert--distilgpt2" in result.stderr


def test_an_unwritable_store_is_one_line(pull: Pull, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where a folder should be")
    result = pull("distilgpt2")
    assert result.returncode == 1
    assert "error: distilgpt2 can't be stored: " in result.stderr
    assert "Traceback" not in result.stderr


def test_an_offline_machine_is_told_how_to_go_online(pull: Pull) -> None:
    result = pull("distilgpt2", HF_HUB_OFFLINE="1")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "error: can't fetch distilgpt2: HF_HUB_OFFLINE is set; set HF_HUB_OFFLINE=0, or use the demo model, "
        "which works offline: --model storyteller (make run MODEL=storyteller)\n"
    )


def test_without_a_network_one_line_says_what_to_do_and_names_the_demo_model(pull: Pull) -> None:
    with socket.socket() as refusing:  # bound, so that no other server gets the port, and not listening
        refusing.bind(("127.0.0.1", 0))
        port = refusing.getsockname()[1]
        result = pull("--if-missing", "distilgpt2", HF_ENDPOINT=f"http://127.0.0.1:{port}")
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: can't fetch distilgpt2 from http://127.0.0.1:{port}: ")
    assert "check the network and pull again (it resumes), or use the demo model" in result.stderr
    assert "make run MODEL=storyteller" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_pull_shows_a_progress_bar_for_each_file(pull: Pull) -> None:
    stderr = pull("distilgpt2", TQDM_POSITION="-1").stderr  # bars without a terminal
    assert "config.json: 100%" in stderr
    assert "model.safetensors: 100%" in stderr


@pytest.mark.parametrize("name", ["distilgpt2", "distilbert/distilgpt2"])
def test_a_missing_model_is_pulled_once_and_then_no_hub_is_needed(name: str, pull: Pull, hub: Any) -> None:
    first = pull("--if-missing", name)
    assert first.returncode == 0, first.stderr
    hub.requests.clear()
    second = pull("--if-missing", name, HF_HUB_OFFLINE="1")
    assert (second.returncode, second.stdout) == (0, "")
    assert second.stderr.startswith("distilbert/distilgpt2 is in ")
    assert hub.requests == []


def test_the_demo_model_and_a_folder_are_never_missing(pull: Pull, hub: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for name in ("storyteller", str(tmp_path)):
        assert pull("--if-missing", name).returncode == 0
    assert hub.requests == []


def test_a_folder_that_does_not_exist_is_one_line_and_no_request(pull: Pull, hub: Any, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert pull("--if-missing", f"{tmp_path}/none").stderr == f"error: no folder {tmp_path}/none\n"
    assert hub.requests == []


def test_if_missing_does_not_go_with_a_revision(pull: Pull) -> None:
    result = pull("--if-missing", "--revision", "main", "distilgpt2")
    assert result.returncode == 2
    assert "leave out --revision or --if-missing" in result.stderr


def test_a_models_folder_needs_no_pull(pull: Pull) -> None:
    folder = BUNDLED_FOLDER
    assert pull(str(folder)).stderr == (
        f"error: '{folder}' is not a model name: write NAME or ORGANISATION/NAME; the folder {folder} needs no pull:"
        f" --model {folder}\n"
    )


def test_an_invalid_name_is_one_line(pull: Pull) -> None:
    assert pull("../../etc").stderr == "error: '../../etc' is not a model name: write NAME or ORGANISATION/NAME\n"


def test_without_the_library_it_says_what_to_install(pull: Pull, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "huggingface_hub.py").write_text("raise ModuleNotFoundError(name='huggingface_hub')")
    result = pull("distilgpt2", PYTHONPATH=str(blocked))
    assert result.returncode == 1
    assert result.stderr.startswith("error: pull needs the extra `hub`, which is not installed: run `make install")
