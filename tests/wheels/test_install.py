"""A first user installs the package, starts it without a word about a model, and sends a request."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.wheels.conftest import ROOT, TOOLS, Run, Serve

Curl = Callable[[str], str]
pytestmark = pytest.mark.timeout(300)


def test_pip_installs_it_into_an_empty_environment(bare_venv: Path, serve: Serve, curl: Curl, run: Run) -> None:
    where = run([bare_venv / "python", "-c", "import distilgpt2_api; print(distilgpt2_api.__file__)"]).stdout
    assert where.startswith(str(bare_venv.parent))

    server = serve([bare_venv / "distilgpt2-api"])

    assert generated(server.url, curl)
    assert "serving" in server.log


def test_without_a_model_it_serves_the_demo_model_and_says_so(bare_venv: Path, serve: Serve) -> None:
    events = [json.loads(line) for line in serve([bare_venv / "distilgpt2-api"]).log.splitlines()]
    assert [(event["model"], event["origin"]) for event in events if event["event"] == "serving"] == [
        ("storyteller", "bundled")
    ]


def test_the_files_that_the_container_page_copies_are_enough(
    make_venv: Callable[..., Path], run: Run, tmp_path: Path
) -> None:
    """Its second Dockerfile copies them one by one. Poetry finds the environment by poetry.toml."""
    section = (ROOT / "docs" / "container.md").read_text(encoding="utf-8").partition("\n### 2. It builds quickly\n")[2]
    lines = section.partition("```dockerfile\n")[2].partition("```")[0].splitlines()
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert "poetry.toml" in copied
    for name in copied:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("libkernels.*", "__pycache__")
            shutil.copytree(ROOT / name, tmp_path / "app" / name, ignore=ignore)
        else:
            (tmp_path / "app").mkdir(exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "app")

    venv = make_venv("--no-deps", tmp_path / "app")

    where = Path(run([venv / "python", "-c", "import distilgpt2_api; print(distilgpt2_api.__file__)"]).stdout).parent
    assert list((where / "model" / "kernels").glob("libkernels.*"))


def test_uv_runs_it_from_a_file(wheel: Path, serve: Serve, curl: Curl) -> None:
    server = serve([TOOLS / "uv", "tool", "run", "--quiet", "--from", wheel, "distilgpt2-api"])
    assert generated(server.url, curl)


def test_pipx_runs_it_from_a_file(wheel: Path, serve: Serve, curl: Curl) -> None:
    server = serve([TOOLS / "pipx", "run", "--quiet", "--spec", wheel, "distilgpt2-api"])
    assert generated(server.url, curl)


def test_it_generates_without_a_server(bare_venv: Path, run: Run) -> None:
    ended = run([bare_venv / "distilgpt2-api", "generate", "Once upon a time", "--max-new-tokens", "5"])
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("Once upon a time")


def generated(url: str, curl: Curl) -> str:
    """The text after the prompt."""
    (text,) = json.loads(curl(f"{url}/Once%20upon%20a%20time?max_new_tokens=8&temperature=0"))["generated_sequences"]
    return str(text).removeprefix("Once upon a time")
