"""How to run a program in the emulated root that `make test-arm64` prepares."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EMULATED_ROOT = ROOT / ".tools" / "arm64" / "root"
PROCESSOR = "neoverse-n1"
"""Graviton2 and Ampere Altra. Debian signs pointers: the emulator does that ten times as slowly for newer ones."""

Command = tuple[str | Path, ...]


@pytest.fixture(scope="session")
def emulated() -> Callable[..., Command]:
    """The words that run a program in the root; the package is the wheel in /opt/packages, not the checkout's."""
    if not (EMULATED_ROOT / "opt" / "packages" / "distilgpt2_api").exists():
        raise pytest.UsageError("there is no root for arm64: make test-arm64 makes it")

    def words(*command: str, **variables: str) -> Command:
        variables = {"PYTHONPATH": "/opt/packages", "HOME": "/tmp", "PYTHONSAFEPATH": "1", **variables}
        return (
            Path(__file__).with_name("run.sh"),
            EMULATED_ROOT,
            *(f"{name}={value}" for name, value in variables.items()),
            *command,
        )

    return words


@pytest.fixture(scope="session")
def emulator_environment() -> Callable[..., Mapping[str, str]]:
    """The variables of an emulated process: this machine's, without the service's settings."""

    def make(processor: str = PROCESSOR) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DISTILGPT2_", "PYTHON"))}
        return kept | {"QEMU_CPU": processor}

    return make
