"""A wheel on a machine that it is not for: one line that says so, from the installer or, if it was forced, from us."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest
from tests.wheels.conftest import TOOLS, Run

pytestmark = pytest.mark.timeout(300)
OLD_GLIBC = "def manylinux_compatible(major, minor, arch):\n    return (major, minor) <= (2, 28)\n"
"""PEP 600: how a machine tells installers which glibc it has."""


@pytest.fixture(params=["manylinux", "macosx"])
def foreign(request: pytest.FixtureRequest, dist: Path, wheel: Path) -> Path:
    """A wheel of another processor, or of another system."""
    return next(path for path in sorted(dist.glob(f"*{request.param}*.whl")) if path != wheel)


def test_pip_refuses_another_platforms_wheel_in_one_line(foreign: Path, run: Run, tmp_path: Path) -> None:
    refused = run([sys.executable, "-m", "pip", "install", "--no-deps", "--target", tmp_path, foreign])
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [f"ERROR: {foreign.name} is not a supported wheel on this platform."]


def test_uv_refuses_it_and_names_both_platforms(foreign: Path, run: Run) -> None:
    refused = run([TOOLS / "uv", "tool", "run", "--from", foreign, "distilgpt2-api"])
    assert refused.returncode != 0
    (hint,) = [line for line in refused.stderr.splitlines() if line.startswith("hint:")]
    assert foreign.stem.rpartition("-")[2] in hint


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's C library")
def test_an_older_glibc_is_refused_before_any_dependency_is_compiled(wheel: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "_manylinux.py").write_text(OLD_GLIBC)
    command = [sys.executable, "-m", "pip", "install", "--target", tmp_path / "target", wheel]
    refused = run(command, PYTHONPATH=str(tmp_path))
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [f"ERROR: {wheel.name} is not a supported wheel on this platform."]


def test_if_it_is_forced_the_service_says_which_platform_it_is_on(
    foreign: Path, bare_venv: Path, run: Run, tmp_path: Path
) -> None:
    """The dependencies are right, only our wheel is another machine's."""
    words = ["--no-deps", "--only-binary=:all:", "--platform", foreign.stem.rpartition("-")[2]]
    forced = run([sys.executable, "-m", "pip", "install", "--target", tmp_path, *words, foreign])
    assert forced.returncode == 0, forced.stderr
    ended = run([bare_venv / "python", "-m", "distilgpt2_api", "generate", "Once"], PYTHONPATH=str(tmp_path))
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path}/distilgpt2_api/model/kernels/libkernels.")
    assert f"{platform.system()} on {platform.machine()}" in line
    assert "install the package again" in line
