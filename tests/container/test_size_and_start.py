"""The image with a model of DistilGPT-2's size is small, and answers quickly after its start."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.container.builds import ROOT, build
from tests.container.engines import Docker, Engine
from tests.container.http import stream

MAX_START_S = {"docker": 1.0, "podman": 1.0, "apptainer": 1.5}
"""Measured on two idle cores: 0.7 s, 0.5 s and 1.0 s. Apptainer first mounts the image through a program of its own."""
MAX_OVER_IMPORTS = 2.0
"""On a slower machine, over a container that only imports the libraries. Measured on idle cores: about 1.2."""
TRIES = 5
IMPORTS = ("python", "-c", "import fastapi, gunicorn, numpy, tokenizers, uvicorn")


@pytest.mark.parametrize("target", ["runtime", "hardened"])
def test_size_is_within_the_budget(docker: Docker, large_image: str, context: Path, target: str) -> None:
    """Acceptance 6: 280 MB unpacked and 145 MB compressed, including int8 weights. Prints the size of each layer."""
    image = large_image
    if target == "hardened":
        image = f"{large_image}-{target}"
        built = build(context, image, f"--target={target}", MODEL="./my-model")
        assert built.exit_status == 0, built.output
    command = [sys.executable, str(ROOT / "docker" / "image_size.py"), "--target", target, image]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    sys.stdout.write(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr


def test_size_above_the_budget_fails(docker: Docker, image: str) -> None:
    program = ROOT / "docker" / "image_size.py"
    command = [sys.executable, str(program), image, "--max-unpacked=1", "--max-compressed=1000"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "unpacked exceed the budget of 1 MB" in result.stderr
    assert "compressed" not in result.stderr


def test_first_token_comes_within_a_second(engine: Engine, large_image: str) -> None:
    """Acceptance 6: from the engine's command to a stream's first event; the best of five, on shared machines."""
    engine.load(large_image)
    seconds: list[float] = []
    imports: list[float] = []
    for _ in range(TRIES):
        seconds.append(seconds_to_first_token(engine, large_image))
        imports.append(seconds_of_imports(engine, large_image))
    sys.stdout.write(f"{engine.name}: first token after {', '.join(f'{second:.2f} s' for second in seconds)}\n")
    sys.stdout.write(f"{engine.name}: imports alone {', '.join(f'{second:.2f} s' for second in imports)}\n")
    assert min(seconds) <= max(MAX_START_S[engine.name], MAX_OVER_IMPORTS * min(imports)), (seconds, imports)


def seconds_of_imports(engine: Engine, image: str) -> float:
    start = time.monotonic()
    result = engine.run(image, *IMPORTS)
    assert result.returncode == 0, result.stdout + result.stderr
    return time.monotonic() - start


def seconds_to_first_token(engine: Engine, image: str) -> float:
    start = time.monotonic()
    with engine.running(image) as container:
        container.wait_until_ready()
        next(stream(container.port, max_tokens=1, ignore_eos=True))
        return time.monotonic() - start
