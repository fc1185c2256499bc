"""Drivers built from the sources, for this machine and for arm64 under emulation."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = {"x86_64": ("avx512vnni", "avxvnni", "avx2", "sse2"), "aarch64": ("dotprod", "neon")}
PLATFORMS = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}
EMULATED = {"dotprod": "max,sve=off", "neon": "cortex-a53"}
"""The processor that the emulator plays: with and without the instructions of the other target."""


def build_driver(out: Path, docker_platform: str) -> Path:
    python = os.environ.get("ZIG_PYTHON", sys.executable)  # one that has ziglang
    command = [python, ROOT / "native" / "build.py", "--driver", "--out", out, "--platform", docker_platform]
    if sanitizers := os.environ.get("KERNELS_SANITIZERS"):
        command += ["--sanitize", sanitizers]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    return out / "driver"


def all_targets() -> list[str]:
    """This machine's, and with KERNELS_EMULATED=1 those of arm64 under qemu."""
    machine = {"arm64": "aarch64", "AMD64": "x86_64"}.get(platform.machine(), platform.machine())
    emulated = TARGETS["aarch64"] if os.environ.get("KERNELS_EMULATED") and machine != "aarch64" else ()
    return [*TARGETS[machine], *emulated]


@pytest.fixture(scope="session")
def driver_command(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """The command that runs a target's driver; builds it at the first request."""
    built: dict[str, Path] = {}

    def command(target: str) -> list[str]:
        machine = next(name for name, targets in TARGETS.items() if target in targets)
        if machine not in built:
            built[machine] = build_driver(tmp_path_factory.mktemp(machine), PLATFORMS[machine])
        if machine == platform.machine():
            return [str(built[machine])]
        emulator = shutil.which("qemu-aarch64-static")
        assert emulator is not None, "install qemu-user-static"
        return [emulator, "-cpu", EMULATED[target], str(built[machine])]

    return command
