"""The image's metadata, which platforms read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.container.builds import build
from tests.container.engines import Docker, Options, call

LABELS = {"title", "description", "licenses", "source", "version", "revision", "created"}


def inspect(image: str) -> Any:
    return json.loads(call(["docker", "image", "inspect", image]).stdout)[0]["Config"]


@pytest.fixture(scope="module")
def config(image: str) -> Any:
    return inspect(image)


def test_user_is_a_number(config: Any) -> None:
    """Kubernetes' runAsNonRoot refuses names; OpenShift uses group 0."""
    assert config["User"] == "10001:0"


def test_the_port_is_named(config: Any) -> None:
    """Azure App Service reads it."""
    assert list(config["ExposedPorts"]) == ["8000/tcp"]


def test_the_command_is_gunicorn(config: Any) -> None:
    assert config["Cmd"][:2] == ["gunicorn", "distilgpt2_api.api:app"]
    assert "--workers" not in config["Cmd"], "or DISTILGPT2_NUM_WORKERS would be ignored"
    assert not config["Entrypoint"]
    assert config["StopSignal"] == "SIGTERM"


def test_the_health_check_needs_no_shell(config: Any) -> None:
    assert config["Healthcheck"]["Test"] == ["CMD", "distilgpt2-api", "healthcheck"]


def test_environment(config: Any) -> None:
    """Values have no quotes and no `$()`, which Apptainer would evaluate."""
    environment = dict(line.split("=", 1) for line in config["Env"])
    promised = {
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONSAFEPATH": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HOME": "/tmp",
        "DISTILGPT2_MODEL": "/opt/model",
    }
    assert promised.items() <= environment.items()
    assert not [value for value in environment.values() if re.search(r"[\"'`$()\\]", value)]


def test_labels(config: Any) -> None:
    assert {f"org.opencontainers.image.{name}" for name in LABELS} <= config["Labels"].keys()
    assert config["Labels"]["org.opencontainers.image.licenses"] == "MIT"


def test_labels_are_arguments_and_cost_no_layer(image: str, context: Path) -> None:
    result = build(
        context, "distilgpt2-api-test:labelled", VERSION="1.2.3", REVISION="abc", SOURCE="https://example.org"
    )
    assert result.exit_status == 0, result.output
    labels = inspect("distilgpt2-api-test:labelled")["Labels"]
    assert labels["org.opencontainers.image.version"] == "1.2.3"
    assert labels["org.opencontainers.image.revision"] == "abc"
    assert labels["org.opencontainers.image.source"] == "https://example.org"


def test_bytecode_is_compiled_and_nothing_writes_more(docker: Docker, image: str) -> None:
    """Every module has its bytecode, which Python uses without checking the source's date."""
    program = """
import importlib.util, pathlib, sys
import distilgpt2_api
for source in pathlib.Path(distilgpt2_api.__file__).parent.rglob("*.py"):
    header = pathlib.Path(importlib.util.cache_from_source(source)).read_bytes()[:8]
    if int.from_bytes(header[4:], "little") != 0b01:
        print(source)
"""
    result = docker.run(image, "python", "-c", program)
    assert (result.returncode, result.stdout) == (0, ""), result.stdout + result.stderr


def test_the_kernels_are_there_once_and_for_this_processor(docker: Docker, image: str) -> None:
    """Without a compiler the image can't make them, and a copy in another layer would be dead weight."""
    result = docker.run(image, "find", "/opt", "/src", "/kernels", "-name", "libkernels*")
    (library,) = result.stdout.split()
    assert library.endswith("/distilgpt2_api/model/kernels/libkernels.so")
    program = "from distilgpt2_api.model.kernels.library import find_targets; print(*find_targets())"
    result = docker.run(image, "python", "-c", program)
    assert result.stdout.split(), result.stdout + result.stderr


def test_processor_threads_are_those_of_the_cpuset(docker: Docker, image: str) -> None:
    result = docker.run(image, "distilgpt2-api", "config", options=Options(flags=("--cpuset-cpus=0",), is_offline=True))
    assert re.search(r"num_threads +auto \(1\)", result.stdout), result.stdout + result.stderr
