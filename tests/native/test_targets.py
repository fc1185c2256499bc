"""The instruction sets that the library finds on this processor or an emulated one; the instructions in its files."""

from __future__ import annotations

import os
import platform
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from tests.native.conftest import all_targets, driver_command

AMX_FLAGS = {"amx_tile", "amx_int8"}
CPU_FLAGS = {
    "amx": AMX_FLAGS | {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "fma"},
    "avx512vnni": {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "fma"},
    "avxvnni": {"avx_vnni", "avx2", "fma"},
    "avx2": {"avx2", "fma"},
    "sse2": {"sse2"},
    "i8mm": {"i8mm"},
    "dotprod": {"asimddp"},
    "neon": {"asimd"},
}
"""Linux's names of the features of each target, the best of an architecture first."""
INSTRUCTIONS = {
    "i8mm": (0xFFE0FC00, 0x4E80AC00),  # USMMLA of 128 bits
    "dotprod": (0xBFE0FC00, 0x0E809400),  # SDOT of vectors
}
"""Mask and value of the word of the instruction that only this target has."""


def expected_targets() -> list[str]:
    """KERNELS_TARGETS, or the targets for which Linux lists the features of this processor."""
    if named := os.environ.get("KERNELS_TARGETS"):
        return named.split()
    path = Path("/proc/cpuinfo")
    if len(driver_command()) > 1 or not path.exists():
        pytest.skip("neither KERNELS_TARGETS nor Linux says which instruction sets there are")
    lines = (line.partition(":") for line in path.read_text(encoding="utf-8").splitlines())
    flags = next(set(value.split()) for name, _, value in lines if name.strip() in {"flags", "Features"})
    if os.environ.get("KERNELS_EMULATED") == "amx":
        flags |= AMX_FLAGS
    return [target for target, needed in CPU_FLAGS.items() if needed <= flags]


def test_every_instruction_set_of_the_processor_is_found_and_the_best_comes_first() -> None:
    assert all_targets() == expected_targets()


@pytest.mark.parametrize(
    ("processor", "targets"),
    [("Haswell", "avx2 sse2"), ("Haswell,fma=off", "sse2"), ("Haswell,xsave=off", "sse2"), ("Nehalem", "sse2")],
)
def test_a_feature_that_the_host_hides_is_not_used(processor: str, targets: str) -> None:
    """As a virtual machine's configuration does, or a system that saves no AVX registers."""
    emulator = shutil.which("qemu-x86_64-static")
    if emulator is None or len(driver_command()) > 1 or platform.machine() != "x86_64":
        pytest.skip("needs x86-64 and qemu-x86_64-static")
    if b"__tsan_init" in (driver := Path(driver_command()[0]).read_bytes()) or b"__asan_init" in driver:
        pytest.skip("the sanitizers' memory does not fit into an emulated process")

    answer = subprocess.run(
        [emulator, "-cpu", processor, *driver_command(), "targets"], check=True, capture_output=True, text=True
    )

    assert answer.stdout.strip() == targets


@pytest.mark.parametrize("target", ["i8mm", "dotprod", "neon"])
def test_the_kernels_have_the_instructions_of_their_target_and_no_others(target: str) -> None:
    """In the file that the compiler wrote, beside the driver: arm64's instructions are words of four bytes."""
    if "neon" not in all_targets():
        pytest.skip("not arm64")
    content = Path(driver_command()[-1]).with_name(f"{target}-kernels.cpp.o").read_bytes()
    words = struct.unpack(f"<{len(content) // 4}I", content[: len(content) // 4 * 4])

    found = {name for name, (mask, value) in INSTRUCTIONS.items() if any(word & mask == value for word in words)}

    assert found == {target} & INSTRUCTIONS.keys()
