"""The command that runs `native/driver.cpp`: built for this machine, for arm64 under an emulator, or with sanitizers.

`make test-native`, `make test-arm64` and `make test-sanitized` build it and set KERNELS_DRIVER to the command's words.
KERNELS_TARGETS names the instruction sets that an emulated processor has, KERNELS_EMULATED those that the driver itself
emulates; KERNELS_MACOS is the library for macOS.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from functools import cache

import pytest


@cache
def driver_command() -> tuple[str, ...]:
    words = shlex.split(os.environ.get("KERNELS_DRIVER", ""))
    if not words:
        raise pytest.UsageError("KERNELS_DRIVER is not set: make test-native builds the driver and sets it")
    return tuple(words)


@cache
def all_targets() -> list[str]:
    """Targets of this processor, or of the emulated one."""
    answer = subprocess.run([*driver_command(), "targets"], check=True, capture_output=True, text=True)
    return answer.stdout.split()
