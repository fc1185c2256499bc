"""A library of kernels that can't be used ends the command with one line."""

from __future__ import annotations

import json
import platform
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distilgpt2_api.model.kernels import library


@pytest.fixture(autouse=True)
def library_is_loaded_again() -> Iterator[None]:
    library.load_library.cache_clear()
    yield
    library.load_library.cache_clear()


def write_text(path: Path) -> None:
    path.write_text("no library")


def write_header_of_another_processor(path: Path) -> None:
    """An ELF header of arm64, or of x86-64 on arm64, and zeros."""
    machine = 62 if platform.machine() in {"aarch64", "arm64"} else 183
    header = (
        b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, *[0] * 4, 64, 56, *[0] * 4)
    )
    path.write_bytes(header + bytes(4096))


def write_header_of_another_system(path: Path) -> None:
    """Mach-O's header, or ELF's on macOS."""
    path.write_bytes((b"\x7fELF" if sys.platform == "darwin" else b"\xcf\xfa\xed\xfe") + bytes(4096))


def link_to_another_library(path: Path) -> None:
    path.symlink_to(np._core._multiarray_umath.__file__)  # type: ignore[attr-defined]  # NumPy types no private modules


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, f"are missing for {platform.system()} on {platform.machine()}"),
    "empty": (Path.touch, "can't be loaded"),
    "a folder": (Path.mkdir, "can't be loaded"),
    "text": (write_text, "can't be loaded"),
    "another processor's": (write_header_of_another_processor, "can't be loaded"),
    "another system's": (write_header_of_another_system, "can't be loaded"),
    "another library": (link_to_another_library, "can't be loaded"),
}


@pytest.mark.parametrize(("create", "reason"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_an_unusable_library_is_one_line(
    create: Callable[[Path], object], reason: str, generate: Callable[[], str], library_path: Path
) -> None:
    create(library_path)

    line = generate()

    assert line.startswith(f"error: {library_path}: the native kernels {reason}")
    assert line.endswith("install the package again (from a checkout: make run, or python native/build.py)\n")


def test_a_library_of_another_version_is_one_line(generate: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    built = library.INTERFACE
    monkeypatch.setattr(library, "INTERFACE", 999)

    assert f"have interface {built}, this version of distilgpt2-api needs 999" in generate()


@pytest.mark.parametrize("name", ["quantum", "sse2" if platform.machine() in {"aarch64", "arm64"} else "i8mm"])
def test_a_target_that_the_processor_lacks_is_one_line(
    name: str, generate: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILGPT2_KERNELS", name)

    line = generate()

    assert line.startswith(f"error: kernels '{name}': this processor runs ")
    assert library.find_targets()[0] in line


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ("library.LIBRARY = Path('/nowhere/libkernels.so')", "/nowhere/libkernels.so: the native kernels are"),
        ("os.environ['DISTILGPT2_KERNELS'] = 'quantum'", "kernels 'quantum': this processor runs "),
    ],
)
def test_serve_ends_with_the_line(patch: str, message: str, tiny_model: Path) -> None:
    program = (
        "import os; from pathlib import Path; from distilgpt2_api.cli import main\n"
        f"from distilgpt2_api.model.kernels import library; {patch}\nmain()"
    )
    command = [sys.executable, "-c", program, "serve", "--host", "127.0.0.1", "--port", "0", "--model", str(tiny_model)]

    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    assert ended.returncode != 0
    assert [line for line in ended.stderr.splitlines() if json.loads(line)["event"].startswith(message)]
    assert "Traceback" not in ended.stderr


@pytest.fixture
def library_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "libkernels.so"
    monkeypatch.setattr(library, "LIBRARY", path)
    return path


@pytest.fixture
def generate(tiny_model: Path, invoke: Any) -> Callable[[], str]:
    """Runs the command, which must fail; returns what it writes to standard error."""

    def run() -> str:
        result = invoke("generate", "Once", "--model", str(tiny_model))
        assert result.exit_code == 1, result.output
        assert result.stderr.count("\n") == 1
        return str(result.stderr)

    return run
