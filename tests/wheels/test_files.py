"""The files in dist/: their names, what is in them, and what their libraries ask of a machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.wheels.conftest import ROOT, TOOLS, Run

TAGS = {"manylinux_2_31_x86_64": ".so", "manylinux_2_31_aarch64": ".so", "macosx_11_0_arm64": ".dylib"}
MACHO_FACTS = """
import json, sys
from macholib.MachO import MachO
from macholib.mach_o import LC_BUILD_VERSION, LC_CODE_SIGNATURE
(header,) = MachO(sys.argv[1]).headers
commands = {load.cmd: command for load, command, _ in header.commands}
print(json.dumps({
    "processor": hex(header.header.cputype),
    "minos": int(commands[LC_BUILD_VERSION].minos),
    "is_signed": LC_CODE_SIGNATURE in commands,
    "libraries": [name for _, _, name in header.walkRelocatables()],
}))
"""
ARM64 = "0x100000c"
MACOS_11 = 11 << 16


@pytest.fixture(params=TAGS)
def tag(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tagged_wheel(dist: Path, tag: str) -> Path:
    (path,) = dist.glob(f"*-{tag}.whl")
    return path


def test_there_is_a_wheel_for_each_platform_and_one_source_distribution(dist: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["poetry"]["version"]
    expected = {f"distilgpt2_api-{version}-py3-none-{tag}.whl" for tag in TAGS} | {f"distilgpt2_api-{version}.tar.gz"}
    assert {path.name for path in dist.iterdir()} == expected


def test_a_wheel_says_inside_what_its_name_says(tagged_wheel: Path, tag: str) -> None:
    with zipfile.ZipFile(tagged_wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/WHEEL")]
        lines = archive.read(name).decode().splitlines()
    assert f"Tag: py3-none-{tag}" in lines
    assert "Root-Is-Purelib: false" in lines
    assert len([line for line in lines if line.startswith("Tag:")]) == 1


def test_a_wheel_has_the_package_the_demo_model_and_one_library(tagged_wheel: Path, tag: str) -> None:
    with zipfile.ZipFile(tagged_wheel) as archive:
        names = set(archive.namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "--", "src"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    package = {name.removeprefix("src/") for name in tracked}
    own = {name for name in names if ".dist-info/" not in name}
    assert own - package == {f"distilgpt2_api/model/kernels/libkernels{TAGS[tag]}"}
    assert package - own == set()
    assert [name for name in names if name.endswith("/licenses/LICENSE")]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_library_needs_no_newer_glibc_than_the_tag_says(dist: Path, machine: str, tmp_path: Path) -> None:
    """The versions of the symbols that the library takes from it say so: it runs on any since 2.17."""
    (path,) = dist.glob(f"*manylinux*_{machine}.whl")
    report = subprocess.run(
        [TOOLS / "auditwheel", "show", path], check=True, capture_output=True, text=True, cwd=tmp_path
    ).stdout
    assert f'is consistent with the following platform tag: "manylinux_2_17_{machine}"' in " ".join(report.split())


def test_the_library_for_macos_loads_on_macos_11_on_apple_silicon(dist: Path, tmp_path: Path) -> None:
    """Its processor and oldest system; the signature, without which an Apple processor loads nothing."""
    (path,) = dist.glob("*macosx*.whl")
    with zipfile.ZipFile(path) as archive:
        library = archive.extract("distilgpt2_api/model/kernels/libkernels.dylib", tmp_path)
    facts = subprocess.run(
        [TOOLS / "python", "-c", MACHO_FACTS, library], check=True, capture_output=True, text=True
    ).stdout
    assert json.loads(facts) == {
        "processor": ARM64,
        "minos": MACOS_11,
        "is_signed": True,
        "libraries": ["/usr/lib/libSystem.B.dylib"],
    }


def test_the_tags_name_the_oldest_glibc_for_which_every_dependency_has_a_wheel() -> None:
    """Or pip would accept our wheel, and then compile a dependency that has none: pages of errors, without Rust."""
    lock = tomllib.loads((ROOT / "poetry.lock").read_text(encoding="utf-8"))
    needed = {
        package["name"]: {machine: _oldest_glibc(package, machine) for machine in ("x86_64", "aarch64")}
        for package in lock["package"]
        if "main" in package["groups"] and not package["optional"] and "markers" not in package
    }
    for machine in ("x86_64", "aarch64"):
        glibcs = {name: oldest for name, glibcs in needed.items() if (oldest := glibcs[machine])}
        assert max(glibcs.values()) == (2, 31), glibcs
        assert glibcs["llguidance"] == (2, 31)


def _oldest_glibc(package: dict[str, Any], machine: str) -> tuple[int, int] | None:
    """None for a package in Python alone. Old names: manylinux1 is 2.5, manylinux2010 2.12, manylinux2014 2.17."""
    files = [file["file"] for file in package["files"]]
    if any(name.endswith("-any.whl") for name in files):
        return None
    found = [
        (int(major), int(minor))
        for name in files
        for major, minor in re.findall(rf"manylinux_(\d+)_(\d+)_{machine}", name)
        if re.search(r"-(cp313-cp313|cp3\d+-abi3)-", name)
    ]
    assert found, f"{package['name']} has no wheel for {machine}"
    return min(found)


def test_the_source_distribution_has_every_source_of_the_kernels(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files", "--", "native", "src"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert set(tracked) - names == set()
    assert names - set(tracked) == {"LICENSE", "README.md", "pyproject.toml", "PKG-INFO"}


def test_the_index_would_accept_the_files(dist: Path) -> None:
    checked = subprocess.run(
        [TOOLS / "twine", "check", "--strict", *dist.iterdir()], check=False, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.timeout(600)
def test_the_same_sources_give_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    """Built once more, in other folders, with nothing that the compiler kept.

    For this machine, the next test compares its library.
    """
    command: list[str | Path] = [TOOLS / "python", ROOT / "wheels" / "build.py", "--out", tmp_path / "again"]
    command += ["--compiler", ROOT / ".tools" / "native" / "bin" / "python"]
    command += [f"--platform={name}" for name in ("linux/arm64", "darwin/arm64")]
    fresh = {f"ZIG_{name}_CACHE_DIR": str(tmp_path / "cache") for name in ("GLOBAL", "LOCAL")}
    variables = {name: value for name, value in os.environ.items() if name == "SOURCE_DATE_EPOCH"}
    variables |= {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **fresh}
    built = subprocess.run(command, check=False, capture_output=True, text=True, env=variables, cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    again = _digests(tmp_path / "again")
    assert len(again) == 3
    assert again.items() <= _digests(dist).items()


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.timeout(600)
def test_the_source_distribution_builds_without_a_compiler_of_the_system(
    sdist: Path, wheel: Path, run: Run, tmp_path: Path
) -> None:
    """The build brings the compiler that pyproject.toml names, and gives the same library as the wheel's."""
    nothing = tmp_path / "bin"
    nothing.mkdir()
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, sdist]
    built = run(pip, PATH=str(nothing), CC="/nonexistent")
    assert built.returncode == 0, built.stderr
    (own,) = tmp_path.glob("*.whl")
    assert _library(own) == _library(wheel)


def _library(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if "libkernels." in name]
        return archive.read(name)
