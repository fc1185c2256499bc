"""Support of processors, from the machine's name and the kernel's feature bits, which are faked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.scripted_runner import ENGINE_CONFIG

from distilgpt2_api.core.config import Precision
from distilgpt2_api.core.errors import UnsupportedProcessorError
from distilgpt2_api.model.kernels.options import kv_block_bytes
from distilgpt2_api.model.kernels.processor import Processor, read_processor
from distilgpt2_api.model.runner import Runner

NEOVERSE_V1 = 0x01EF_FFFF & ~(1 << 24)
"""`AT_HWCAP` of Graviton3, with SVE (bit 22); Graviton2 has the same without that bit."""
NEOVERSE_N1 = NEOVERSE_V1 & ~(1 << 22)


def never() -> int:
    raise AssertionError("not asked on this machine")


@pytest.mark.parametrize(
    ("machine", "read_hwcap", "processor"),
    [
        ("x86_64", never, Processor(is_arm64=False)),
        ("AMD64", never, Processor(is_arm64=False)),
        ("aarch64", lambda: NEOVERSE_V1, Processor(is_arm64=True, has_sve=True)),
        ("aarch64", lambda: NEOVERSE_N1, Processor(is_arm64=True, has_sve=False)),
        ("arm64", lambda: 0, Processor(is_arm64=True, has_sve=False)),
    ],
)
def test_a_processor_is_recognised_by_name_and_bits(
    machine: str, read_hwcap: Callable[[], int], processor: Processor
) -> None:
    assert read_processor(lambda: machine, read_hwcap) == processor


def test_this_machine_can_be_read() -> None:
    """Every Linux has the auxiliary vector, on any processor."""
    assert read_processor(lambda: "aarch64").is_arm64


def load(folder: Path, processor: Processor, precision: Precision) -> tuple[Runner, list[str]]:
    reports: list[str] = []
    runner = Runner.load(
        folder,
        replace(ENGINE_CONFIG, precision=precision),
        num_blocks=4,
        cache_folder=None,
        report=reports.append,
        processor=processor,
    )
    return runner, reports


@pytest.mark.reported("trial under emulation: bf16 fails on arm64 with SVE")
def test_float32_replaces_bf16_on_arm64(make_model: Any) -> None:
    runner, reports = load(make_model().path, Processor(is_arm64=True, has_sve=True), Precision.BF16)

    assert "bf16 attention fails on arm64, so float32 replaces bf16" in reports[0]
    assert runner.kv_block_bytes == kv_block_bytes(runner.config, Precision.F32)
    runner.close()


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.F32])
def test_other_precisions_are_unchanged_on_arm64(precision: Precision, make_model: Any) -> None:
    runner, reports = load(make_model().path, Processor(is_arm64=True, has_sve=True), precision)

    assert not any("stands in" in line for line in reports)
    assert runner.kv_block_bytes == kv_block_bytes(runner.config, precision)
    runner.close()


@pytest.mark.reported(
    "trial under emulation: AttentionExecutor creation fails on Apple Silicon, Graviton2 and the like"
)
def test_arm64_without_sve_is_refused_in_one_line(make_model: Any) -> None:
    with pytest.raises(
        UnsupportedProcessorError, match=r"arm64 without SVE .* use x86-64, or arm64 with SVE"
    ) as refused:
        load(make_model().path, Processor(is_arm64=True), Precision.INT8)

    assert "\n" not in str(refused.value)
