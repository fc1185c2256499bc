"""The publish job's steps, against a package index on this machine: upload, then install by name."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import DEADLINE_S, eventually
from tests.wheels.conftest import TOOLS, Run, Serve

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def index(environment: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty index. It has only what is uploaded."""
    log_file = tmp_path_factory.mktemp("log") / "log"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command: list[str | Path] = [TOOLS / "pypi-server", "run", "--interface", "127.0.0.1", "--port", str(port)]
    command += ["--authenticate", ".", "--passwords", ".", "--disable-fallback", tmp_path_factory.mktemp("packages")]
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def is_healthy() -> bool:
        assert process.poll() is None, log_file.read_text()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{port}/health").is_success
        return False

    try:
        eventually(is_healthy, "the index answers")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


@pytest.fixture(scope="module")
def published(index: str, dist: Path, run: Run) -> str:
    words = ["--non-interactive", "--disable-progress-bar", "--username", "anyone", "--password", "none"]
    files = sorted(dist.iterdir())
    uploaded = run([TOOLS / "twine", "upload", *words, "--repository-url", index, *files])
    assert uploaded.returncode == 0, uploaded.stdout + uploaded.stderr
    return index


def test_the_index_lists_every_file(published: str, dist: Path) -> None:
    page = httpx.get(f"{published}/simple/distilgpt2-api/").text
    assert {path.name for path in dist.iterdir()} == set(re.findall(r">(distilgpt2_api-[^<]+)</a>", page))


def test_pip_chooses_the_wheel_of_this_machine_by_name(
    published: str, wheel: Path, make_venv: Callable[..., Path], run: Run
) -> None:
    programs = make_venv("--no-deps", "--index-url", f"{published}/simple", "distilgpt2-api")
    report = json.loads(run([programs / "pip", "inspect"]).stdout)
    (installed,) = [entry for entry in report["installed"] if entry["metadata"]["name"] == "distilgpt2-api"]
    assert installed["metadata"]["version"] in wheel.name
    assert run([programs / "python", "-c", "import distilgpt2_api"]).returncode == 0


def test_uvx_serves_it_by_name(published: str, serve: Serve, curl: Callable[[str], str]) -> None:
    server = serve([TOOLS / "uvx", "--quiet", "--index", f"{published}/simple", "distilgpt2-api"])
    assert json.loads(curl(f"{server.url}/readyz"))["status"] == "ready"
