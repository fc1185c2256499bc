"""`make run`, `make install` and `make clean`: the commands that they start, and the files that they leave."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def dry_run(folder: Path, *arguments: str) -> list[str]:
    """The commands that make would start."""
    environment = {name: value for name, value in os.environ.items() if name not in {"MODEL", "MAKEFLAGS", "EXTRAS"}}
    result = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.strip() for line in result.stdout.splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("arguments", "commands"),
    [
        ([], ["exec .venv/bin/distilgpt2-api serve"]),
        (
            ["MODEL=distilgpt2"],
            [
                '.venv/bin/distilgpt2-api pull --if-missing "distilgpt2"',
                'exec .venv/bin/distilgpt2-api serve --model "distilgpt2"',
            ],
        ),
        (
            ["MODEL=./my model"],
            [
                '.venv/bin/distilgpt2-api pull --if-missing "./my model"',
                'exec .venv/bin/distilgpt2-api serve --model "./my model"',
            ],
        ),
    ],
)
def test_make_run_pulls_a_named_model_if_it_is_missing_and_serves_it(arguments: list[str], commands: list[str]) -> None:
    assert dry_run(ROOT, "--assume-old=.venv/installed", "run", *arguments) == commands


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that make looks at, with an environment to which the extra `hub` was installed."""
    for makefile in [ROOT / "Makefile", *ROOT.glob("*/*.mk"), *ROOT.glob("tests/*/*.mk")]:
        copy = tmp_path / makefile.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(makefile, copy)
    programs = (".venv/bin/python", ".tools/poetry/bin/poetry")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("poetry.lock", "native/step.cpp", *programs, ".venv/package", ".venv/installed"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("hub\n")
    return tmp_path


@pytest.mark.parametrize(
    ("before", "extras", "exported"),
    [
        ("hub", "", []),
        ("hub", "otel", ["hub", "otel"]),
        ("batch hub", "otel", ["batch", "hub", "otel"]),
        ("batch hub otel", "otel", []),
        ("hub", "postgres batch", ["batch", "hub", "postgres"]),
    ],
)
def test_make_install_adds_extras_to_those_that_are_installed(
    checkout: Path, before: str, extras: str, exported: list[str]
) -> None:
    (checkout / ".venv" / "installed").write_text(f"{before}\n")
    exports = [line.split() for line in dry_run(checkout, "install", f"EXTRAS={extras}") if " export " in line]
    assert [[word for word in line if word in before.split() + extras.split()] for line in exports] == (
        [exported] if exported else []
    )


@pytest.mark.reported("first hour: make install EXTRAS=batch compiled the kernels again")
@pytest.mark.parametrize("arguments", [("install",), ("install", "EXTRAS=otel"), (".venv/installed-dev",)])
def test_the_kernels_are_compiled_only_if_their_sources_have_changed(
    checkout: Path, arguments: tuple[str, ...]
) -> None:
    """Installing the package compiles them, however little of it is new."""

    def num_compilations() -> int:
        return sum("--editable ." in command for command in dry_run(checkout, *arguments))

    assert num_compilations() == 0
    os.utime(checkout / "native" / "step.cpp", times=(1 << 33, 1 << 33))  # newer than all
    assert num_compilations() == 1
    os.utime(checkout / "native" / "step.cpp", times=(0, 0))
    assert num_compilations() == 0
    (checkout / ".venv" / "package").unlink()  # a new environment
    assert num_compilations() == 1


@pytest.mark.reported("a newcomer: after make clean the folder build, the compiled kernels and bytecode were left")
def test_make_clean_leaves_the_files_of_a_clone_alone(checkout: Path) -> None:
    made = [
        "build/native/driver/driver",
        "build/native/zig/h/timestamp",
        "dist/package.whl",
        "src/distilgpt2_api/model/kernels/libkernels.so",
        "src/distilgpt2_api/cli/__pycache__/serve.cpython-311.pyc",
        "tests/__pycache__/conftest.cpython-311.pyc",
    ]
    kept = ["src/distilgpt2_api/model/kernels/library.py", "my-model/config.json", "my build/notes.txt"]
    for name in [*made, *kept]:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()

    subprocess.run(["make", "--silent", "clean"], cwd=checkout, check=True)

    assert not (checkout / ".venv").exists()
    assert not (checkout / ".tools").exists()
    assert not [name for name in made if (checkout / name).exists()]
    assert list(checkout.rglob("__pycache__")) == []
    assert [name for name in kept if (checkout / name).exists()] == kept


@pytest.mark.reported("a newcomer: the installation left 54 MB in ~/.cache/zig")
def test_the_compiler_caches_beside_the_sources(checkout: Path) -> None:
    """CXX names a compiler that writes where it should cache instead of what it compiles."""
    shutil.copytree(ROOT / "native", checkout / "native", dirs_exist_ok=True)
    compiler = checkout / "compiler.sh"
    compiler.write_text(
        'while [ "$1" != -o ]; do shift; done\necho "$ZIG_GLOBAL_CACHE_DIR $ZIG_LOCAL_CACHE_DIR" > "$2"\n'
    )
    out = checkout / "out"
    command = [sys.executable, str(checkout / "native" / "build.py"), "--platform", "linux/amd64", "--out", str(out)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ZIG_")}

    subprocess.run(command, env=environment | {"CXX": f"sh {compiler}"}, check=True)

    cache = str(checkout / "build" / "native" / "zig")
    assert (out / "libkernels.so").read_text().split() == [cache, cache]


@pytest.mark.parametrize("extras", ["foo", "batch,otel", "batch foo"])
def test_an_unknown_extra_is_an_error_that_lists_all(checkout: Path, extras: str) -> None:
    command = ["make", "--dry-run", "install", f"EXTRAS={extras}"]
    result = subprocess.run(command, check=False, cwd=checkout, capture_output=True, text=True)
    unknown = extras.rsplit(maxsplit=1)[-1]
    assert result.returncode == 2
    assert (
        f"there is no extra '{unknown}': EXTRAS can be hub otel batch postgres ray, separated by spaces"
        in result.stderr
    )


def test_an_extra_is_named_as_in_the_project_file() -> None:
    """Messages and pages name extras for `make install EXTRAS=…`."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {"hub", "otel", "batch", "postgres", "ray"} == set(extras)
