"""An engine that loads while the server around it is imported."""

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
from distilgpt2_api.engine_load import begin_load, engine_load
from distilgpt2_api.model.hub.store import BUNDLED_FOLDER
from distilgpt2_api.settings import Settings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Where nothing is begun, or loads, after the test that began it."""
    monkeypatch.setenv("DISTILGPT2_MODEL", str(BUNDLED_FOLDER))
    monkeypatch.setenv("DISTILGPT2_CACHE_HOME", str(tmp_path))
    yield
    monkeypatch.setenv("DISTILGPT2_MODEL", str(BUNDLED_FOLDER))
    engine_load(Settings())
    for thread in threading.enumerate():
        if thread.name == "load":
            thread.join()


def test_the_application_takes_what_was_begun_once() -> None:
    interval_s = sys.getswitchinterval()
    begin_load()

    load, other = engine_load(Settings()), engine_load(Settings())

    assert load.is_begun
    assert not other.is_begun
    engine = load.result()
    assert load.result() is engine
    assert engine.config.vocab_size == 3072
    assert sys.getswitchinterval() == interval_s
    engine.close()


def test_what_was_begun_for_other_settings_is_nobodys() -> None:
    begin_load()

    with structlog.testing.capture_logs() as lines:
        load = engine_load(Settings(max_num_sequences=3))

    assert [line["log_level"] for line in lines] == ["warning"]
    assert not load.is_begun
    load.result().close()


def test_settings_that_are_wrong_begin_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application finds out for itself, and says so."""
    monkeypatch.setenv("DISTILGPT2_MODEL", "/nowhere")

    begin_load()

    with pytest.raises(ModelError, match="/nowhere"):
        engine_load(Settings())


@pytest.mark.parametrize("is_begun", [False, True])
def test_a_model_that_can_not_be_loaded_is_told_to_whoever_asks(
    is_begun: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = shutil.copytree(BUNDLED_FOLDER, tmp_path / "spoilt")
    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    monkeypatch.setenv("DISTILGPT2_MODEL", str(folder))
    if is_begun:
        begin_load()

    load = engine_load(Settings())

    assert load.is_begun == is_begun
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load.result()


def test_a_process_that_ends_while_it_loads_ends_in_peace() -> None:
    """Kernels that compile while the interpreter is taken down would end it by a signal."""
    program = "from distilgpt2_api.engine_load import begin_load; begin_load()"
    for _ in range(3):
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize(("begin", "status", "output"), [("begin_load()", 4, ""), ("None", 0, "nothing loads\n")])
def test_who_is_to_end_before_it_serves_waits_for_no_load(begin: str, status: int, output: str) -> None:
    program = (
        f"from distilgpt2_api.engine_load import begin_load, leave_at_once; {begin}; leave_at_once(4);"
        "print('nothing loads')"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout) == (status, output)
