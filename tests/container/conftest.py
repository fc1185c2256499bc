"""Fixtures: the image, built once; the available engines; a running service on each.

`make test-container` installs the requirements. A test without its engine is skipped with the reason.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.container.apptainer import Apptainer
from tests.container.builds import ROOT, build, copy_checkout
from tests.container.engines import NAME_PREFIX, Container, Docker, Engine, Podman, call

IMAGE = "distilgpt2-api-test:demo"
MOUNTS = Path("/proc/self/mounts")
WITHOUT_MODEL = "distilgpt2-api-test:without-model"
MODEL_IMAGE = "distilgpt2-api-test:model"
LARGE_IMAGE = "distilgpt2-api-test:distilgpt2-shape"
HARDENED = "hardened"
"""The image without a shell: a target of the Dockerfile, and what its tags end with."""


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Check that no test container and no new mount remains."""
    mounts = set(MOUNTS.read_text().splitlines())
    yield
    if Docker().missing() is None:
        assert call(["docker", "ps", "--all", "--quiet", "--filter", f"name={NAME_PREFIX}"]).stdout == ""
    assert set(MOUNTS.read_text().splitlines()) <= mounts


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A temporary folder for gigabytes; other users may read it, because one engine runs as another user."""
    with tempfile.TemporaryDirectory(prefix="container-tests-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


@pytest.fixture(scope="session")
def docker() -> Docker:
    engine = Docker()
    if why_not := engine.missing():
        pytest.skip(f"docker: {why_not}")
    return engine


@pytest.fixture(scope="session")
def context(scratch: Path) -> Path:
    """A copy of the checkout to build from."""
    return copy_checkout(scratch / "context")


@pytest.fixture(scope="session")
def image(docker: Docker, context: Path) -> str:
    """The image with the demo model."""
    result = build(context, IMAGE)
    assert result.exit_status == 0, result.output
    return IMAGE


@pytest.fixture(scope="session")
def hardened_image(image: str, context: Path) -> str:
    """The same without shell and package manager."""
    tag = f"{image}-{HARDENED}"
    result = build(context, tag, f"--target={HARDENED}")
    assert result.exit_status == 0, result.output
    return tag


@pytest.fixture(scope="session", params=["runtime", HARDENED])
def each_image(request: pytest.FixtureRequest, image: str) -> str:
    """Both images with the demo model, one after the other."""
    if request.param == HARDENED:
        image = request.getfixturevalue("hardened_image")
    return image


@pytest.fixture(scope="session")
def large_image(image: str, context: Path) -> str:
    """The image with random weights in DistilGPT-2's shape, from a folder of the checkout."""
    program = str(ROOT / "benchmarks" / "make_model.py")
    subprocess.run([sys.executable, program, str(context / "my-model")], check=True, capture_output=True)
    result = build(context, LARGE_IMAGE, MODEL="./my-model")
    assert result.exit_status == 0, result.output
    return LARGE_IMAGE


@pytest.fixture(scope="session")
def without_model(image: str, context: Path) -> str:
    """The image with `MODEL=none`."""
    result = build(context, WITHOUT_MODEL, MODEL="none")
    assert result.exit_status == 0, result.output
    return WITHOUT_MODEL


@pytest.fixture(scope="session")
def model_image(image: str, context: Path) -> str:
    """The demo model alone."""
    result = build(context, MODEL_IMAGE, "--target=model-image", MODEL_LICENSE="MIT")
    assert result.exit_status == 0, result.output
    return MODEL_IMAGE


@pytest.fixture(scope="session")
def podman(scratch: Path) -> Iterator[Podman]:
    (scratch / "podman").mkdir()
    engine = Podman(scratch / "podman")
    yield engine
    if engine.missing() is None:
        engine.close()


@pytest.fixture(scope="session")
def apptainer(scratch: Path) -> Apptainer:
    (scratch / "apptainer").mkdir()
    return Apptainer(scratch / "apptainer")


@pytest.fixture(scope="session")
def every_engine(docker: Docker, podman: Podman, apptainer: Apptainer) -> list[Engine]:
    return [docker, podman, apptainer]


@pytest.fixture(scope="session", params=["docker", "podman", "apptainer"])
def engine(request: pytest.FixtureRequest, every_engine: list[Engine], image: str) -> Engine:
    """Each available engine, with the image loaded."""
    [engine] = [engine for engine in every_engine if engine.name == request.param]
    if why_not := engine.missing():
        pytest.skip(f"{engine.name}: {why_not}")
    engine.load(image)
    return engine


@pytest.fixture(scope="session")
def service(engine: Engine, image: str) -> Iterator[Container]:
    """The image with the demo model, started as by `docker run`; for tests that only send requests."""
    with engine.running(image) as container:
        container.wait_until_ready()
        yield container
