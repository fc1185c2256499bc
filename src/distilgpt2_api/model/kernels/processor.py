"""Checks that the kernels support the processor, and chooses their precision (OpenVINO 2026.4).

The CPU plugin's PagedAttention has code for x86-64 and for SVE. On arm64 without SVE it can't be compiled; with SVE it
is wrong in bf16.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from dataclasses import dataclass

from distilgpt2_api.core.config import ModelConfig, Precision
from distilgpt2_api.core.errors import UnsupportedProcessorError

ARM64 = ("aarch64", "arm64")
"""The names on Linux and macOS."""
AT_HWCAP = 16
"""Key of the auxiliary vector's CPU features, one bit each (getauxval(3))."""
HWCAP_SVE = 1 << 22
"""https://docs.kernel.org/arch/arm64/elf_hwcaps.html"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    is_arm64: bool
    has_sve: bool = False

    def check(self) -> None:
        """Raise UnsupportedProcessorError if the attention kernels can't run."""
        if self.is_arm64 and not self.has_sve:
            raise UnsupportedProcessorError(
                "this processor is arm64 without SVE (Apple Silicon, Graviton2, Ampere Altra, Raspberry Pi), for which"
                " OpenVINO has no attention kernels: use x86-64, or arm64 with SVE (Graviton3, Cobalt, Axion or Grace);"
                " on Apple Silicon, run the amd64 image in emulation (docker run --platform linux/amd64)"
            )


def read_processor(
    read_machine: Callable[[], str] = platform.machine, read_hwcap: Callable[[], int] | None = None
) -> Processor:
    """This machine's processor. `read_hwcap` reads the auxiliary vector's `AT_HWCAP`."""
    if read_machine().lower() not in ARM64:
        return Processor(is_arm64=False)
    return Processor(is_arm64=True, has_sve=bool((read_hwcap or _read_hwcap)() & HWCAP_SVE))


def kernel_precision(config: ModelConfig, precision: Precision, processor: Processor) -> tuple[Precision, str]:
    """The precision for correct kernels, and the reason if it is not the requested one, else "".

    The weights of bf16 are float32 anyway (`weights/prepared.py`).
    """
    if precision is not Precision.BF16:
        return precision, ""
    if processor.is_arm64:
        return Precision.F32, "OpenVINO's bf16 attention fails on arm64"
    if config.head_size % 2 == 1:
        # Wrong results for prompts longer than a token. No well-known GPT-2 has such heads.
        return Precision.F32, f"head size {config.head_size} is odd"
    return precision, ""


def _read_hwcap() -> int:
    getauxval = getattr(ctypes.CDLL(None), "getauxval", None)
    if getauxval is None:  # not Linux
        return 0
    getauxval.restype = ctypes.c_ulong
    getauxval.argtypes = (ctypes.c_ulong,)
    return int(getauxval(AT_HWCAP))
