"""A build is fast after small changes, reproducible, and fails with a one-line error."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from tests.container.builds import Build, build
from tests.container.engines import Docker, call

MAX_REBUILD_S = 10
SECOND_IMAGE = "distilgpt2-api-test:second"


def layers(image: str) -> list[str]:
    found = call(["docker", "image", "inspect", "--format", "{{json .RootFS.Layers}}", image]).stdout
    digests: list[str] = json.loads(found)
    return digests


def test_a_change_of_code_rebuilds_nothing_else(image: str, context: Path, tmp_path: Path) -> None:
    """Acceptance 5: dependencies and model come from the cache, only the top layer changes, in under 10 s."""
    changed = tmp_path / "changed"
    shutil.copytree(context, changed)
    module = changed / "src" / "distilgpt2_api" / "api.py"
    module.write_text(module.read_text() + "\n# another line\n")

    result = build(changed, SECOND_IMAGE)

    assert result.exit_status == 0, result.output
    for step in (
        "poetry export",
        "python docker/trim.py",
        "docker/prepare_model.py --model",
        "native/build.py --platform",
        "chmod a-s",
        "COPY --from=dependencies",
    ):
        assert result.is_cached(step), f"{step}: not from the cache"
    assert layers(SECOND_IMAGE)[:-1] == layers(image)[:-1]
    assert layers(SECOND_IMAGE)[-1] != layers(image)[-1]
    assert result.seconds < MAX_REBUILD_S


def test_two_builds_give_the_same_layers(
    image: str, hardened_image: str, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without cache, with other file dates and another umask, the digests are the same: of both images.

    The hardened image is built of every stage, so the second build finds all of them in the cache of the first.
    """
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    copy = tmp_path / "copy"
    shutil.copytree(context, copy, copy_function=shutil.copyfile)
    for path in copy.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
        path.chmod(0o700 if path.is_dir() or path.suffix == ".sh" else 0o600)

    for target, options, first in (("hardened", ["--no-cache"], hardened_image), ("runtime", [], image)):
        result = build(copy, SECOND_IMAGE, f"--target={target}", *options)
        assert result.exit_status == 0, result.output
        assert layers(SECOND_IMAGE) == layers(first), target


def test_the_hardened_image_has_the_same_layers_but_the_first(image: str, hardened_image: str) -> None:
    """A machine that has one image pulls 16 MB for the other."""
    assert layers(hardened_image)[1:] == layers(image)[1:]
    assert layers(hardened_image)[0] != layers(image)[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"MODEL": "./nowhere"}, "error: --build-arg MODEL=./nowhere: no such folder in the build context"),
        ({"MODEL": "docker"}, "error: --build-arg MODEL=docker: the folder is not a model: it has no config.json"),
        ({"MODEL": "no-model-of-that-name"}, "error: --build-arg MODEL=no-model-of-that-name: "),
        ({"MODEL": ""}, "error: --build-arg MODEL=: it is empty"),
        ({"PRECISION": "int3"}, "error: --build-arg PRECISION=int3: must be one of int8, bf16, f32"),
    ],
)
def test_a_wrong_argument_is_a_one_line_error(
    docker: Docker, image: str, context: Path, arguments: dict[str, str], message: str
) -> None:
    result = build(context, SECOND_IMAGE, **arguments)
    assert result.exit_status != 0
    assert message in result.output
    assert "Traceback" not in result.output


def test_a_broken_model_is_a_one_line_error(docker: Docker, image: str, context: Path, tmp_path: Path) -> None:
    broken = tmp_path / "context"
    shutil.copytree(context, broken)
    model = broken / "my-model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text('{"model_type": "llama"}')
    result: Build = build(broken, SECOND_IMAGE, MODEL="./my-model")
    assert result.exit_status != 0
    assert "error: --build-arg MODEL=./my-model: ./my-model/config.json" in result.output
    assert "Traceback" not in result.output


def test_the_kernels_of_another_architecture_are_compiled_without_emulation(
    image: str, docker: Docker, context: Path
) -> None:
    """The stage runs on the machine that builds. The stages after it run programs of the image's own architecture."""
    assert image
    other, magic = ("amd64", 62) if os.uname().machine == "aarch64" else ("arm64", 183)

    result = build(context, SECOND_IMAGE, f"--platform=linux/{other}", "--target=kernels")

    assert result.exit_status == 0, result.output
    program = "import struct; print(*struct.unpack_from('<H', open('/kernels/libkernels.so', 'rb').read(20), 18))"
    assert docker.run(SECOND_IMAGE, "python3", "-c", program).stdout.split() == [str(magic)]
