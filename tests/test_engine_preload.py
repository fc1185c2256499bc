"""The engine loads while the server is imported."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from distilgpt2_api.core.errors import ModelError
from distilgpt2_api.engine_preload import claim_preload, start_preload
from distilgpt2_api.model.hub.store import BUNDLED_FOLDER
from distilgpt2_api.settings import Settings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Leaves no unclaimed preload and no loading thread to the next test."""
    monkeypatch.setenv("DISTILGPT2_MODEL", str(BUNDLED_FOLDER))
    monkeypatch.setenv("DISTILGPT2_CACHE_HOME", str(tmp_path))
    yield
    monkeypatch.setenv("DISTILGPT2_MODEL", str(BUNDLED_FOLDER))
    claim_preload(Settings())
    for thread in threading.enumerate():
        if thread.name == "load":
            thread.join()


def test_a_started_preload_is_claimed_once() -> None:
    interval_s = sys.getswitchinterval()
    start_preload()

    preload, other = claim_preload(Settings()), claim_preload(Settings())

    assert preload.is_started
    assert not other.is_started
    engine = preload.result()
    assert preload.result() is engine
    assert engine.config.vocab_size == 3072
    assert sys.getswitchinterval() == interval_s
    engine.close()


def test_a_preload_with_other_settings_is_not_used() -> None:
    start_preload()

    with structlog.testing.capture_logs() as lines:
        preload = claim_preload(Settings(max_num_sequences=3))

    assert [line["log_level"] for line in lines] == ["warning"]
    assert not preload.is_started
    preload.result().close()


def test_wrong_settings_start_no_preload(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application reports the error."""
    monkeypatch.setenv("DISTILGPT2_MODEL", "/nowhere")

    start_preload()

    with pytest.raises(ModelError, match="/nowhere"):
        claim_preload(Settings())


@pytest.mark.parametrize("is_started", [False, True])
def test_result_raises_if_the_model_can_not_be_loaded(
    is_started: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = shutil.copytree(BUNDLED_FOLDER, tmp_path / "spoilt")
    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    monkeypatch.setenv("DISTILGPT2_MODEL", str(folder))
    if is_started:
        start_preload()

    preload = claim_preload(Settings())

    assert preload.is_started == is_started
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        preload.result()


def test_a_process_that_exits_while_it_loads_does_not_crash() -> None:
    """Without the join at exit, kernels that compile during the interpreter's shutdown end the process by a signal."""
    program = "from distilgpt2_api.engine_preload import start_preload; start_preload()"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize(("start", "status", "output"), [("start_preload()", 4, ""), ("None", 0, "nothing loads\n")])
def test_an_exit_before_serving_does_not_wait_for_the_preload(start: str, status: int, output: str) -> None:
    program = (
        f"from distilgpt2_api.engine_preload import start_preload, exit_now; {start}; exit_now(4);"
        "print('nothing loads')"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout) == (status, output)
