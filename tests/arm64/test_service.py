"""The wheel for arm64 with its locked dependencies, emulated: the same text as here, the server, the engine's tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from tests.arm64.conftest import ROOT, Command
from tests.e2e.conftest import DEADLINE_S, Server, eventually

pytestmark = pytest.mark.timeout(600)
Words = Callable[..., Command]
Environment = Callable[..., Mapping[str, str]]
START_S = 300.0
"""A start takes ten seconds of an emulated processor."""

PROGRAM = """
import json, platform
import distilgpt2_api
from distilgpt2_api.model.kernels.library import find_targets
from distilgpt2_api.text_generation import TextGenerator
generator = TextGenerator()
prompts = "Once upon a time", "The king said", "In the forest"
print(json.dumps({
    "machine": platform.machine(),
    "package": distilgpt2_api.__file__,
    "targets": find_targets(),
    "texts": [generator.generate(prompt, max_new_tokens=48, temperature=0) for prompt in prompts],
}))
"""
ENGINE_TESTS = ["test_exactness.py", "test_engine.py"]


@pytest.fixture(scope="module")
def texts_here() -> list[list[str]]:
    """The texts of this machine's own kernels in float32."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DISTILGPT2_")}
    command = [sys.executable, "-c", PROGRAM]
    ended = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment | {"DISTILGPT2_PRECISION": "f32"}
    )
    texts: list[list[str]] = json.loads(ended.stdout)["texts"]
    return texts


@pytest.mark.parametrize(
    ("processor", "best"),
    [("max,sve=off,pauth-impdef=on", "i8mm"), ("neoverse-n1", "dotprod"), ("cortex-a72", "neon")],
)
def test_greedy_text_in_float32_is_that_of_this_machine(
    processor: str, best: str, emulated: Words, emulator_environment: Environment, texts_here: list[list[str]]
) -> None:
    ended = subprocess.run(
        emulated("python3", "-c", PROGRAM, DISTILGPT2_PRECISION="f32"),
        check=False,
        capture_output=True,
        text=True,
        env=emulator_environment(processor),
    )
    assert ended.returncode == 0, ended.stderr
    facts: dict[str, Any] = json.loads(ended.stdout)
    assert facts["machine"] == "aarch64"
    assert facts["package"] == "/opt/packages/distilgpt2_api/__init__.py"
    assert facts["targets"][0] == best
    assert facts["texts"] == texts_here


@pytest.fixture(scope="module")
def server(
    emulated: Words, emulator_environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    log_file = tmp_path_factory.mktemp("log") / "log"
    command = emulated("python3", "-m", "distilgpt2_api", "serve", "--host", "127.0.0.1", "--port", "0")
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command, env=emulator_environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    server = Server("", process, log_file)
    try:
        eventually(lambda: process.poll() is not None or "serving" in server.log, "it serves", deadline_s=START_S)
        server.wait_listening()
        yield server
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(DEADLINE_S)


def test_the_server_answers_curl(server: Server) -> None:
    words = ["curl", "--fail", "--silent", "--show-error", "--max-time", "120"]

    def curl(*more: str) -> str:
        return subprocess.run([*words, *more], check=True, capture_output=True, text=True).stdout

    assert json.loads(curl(f"{server.url}/readyz"))["status"] == "ready"
    (text,) = json.loads(curl(f"{server.url}/Once%20upon%20a%20time?max_new_tokens=8"))["generated_sequences"]
    assert text.startswith("Once upon a time")
    streamed = curl(f"{server.url}/v1/completions", "--json", '{"prompt": "Once", "max_tokens": 4, "stream": true}')
    assert streamed.rstrip().endswith("data: [DONE]")


def test_the_engines_tests_pass(emulated: Words, emulator_environment: Environment) -> None:
    """On real kernels against results of `transformers`, and with a scripted runner."""
    files = [f"tests/engine/{name}" for name in ENGINE_TESTS]
    options = ["-q", "-p", "no:cacheprovider", "--timeout=300"]
    command = emulated("python3", "-m", "pytest", *options, *files, PYTHONSAFEPATH="", PYTHONDONTWRITEBYTECODE="1")
    ended = subprocess.run(command, check=False, capture_output=True, text=True, env=emulator_environment(), cwd=ROOT)
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-1000:]
