"""Cores and memory, read from control groups of both versions."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from distilgpt2_api.settings.host_resources import choose_kv_cache_bytes, count_usable_cores, read_memory_limit_bytes

FakeSystem = Callable[[dict[str, str]], Path]


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSystem:
    """Builds a root folder with the given files, on a machine with eight cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)

    def build(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return build


@pytest.mark.parametrize(
    ("files", "num_cores"),
    [
        pytest.param({}, 8, id="no control groups"),
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8, id="v2, no quota"),
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2, id="v2"),
        pytest.param(
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1, id="v2, one and a half"
        ),
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1, id="v2, a tenth"),
        pytest.param(
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "6400000 100000\n"}, 8, id="v2, over the machine"
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/user/app\n",
                "sys/fs/cgroup/user/app/cpu.max": "max 100000\n",
                "sys/fs/cgroup/user/cpu.max": "300000 100000\n",
            },
            3,
            id="v2, limit of the parent",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/docker/abc\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            4,
            id="v1, the host's path, our group at the root",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "3:cpu:/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
            },
            8,
            id="v1, no quota",
        ),
        pytest.param(
            {"proc/self/cgroup": "1:cpu:/\n0::/\n", "sys/fs/cgroup/unified/cpu.max": "500000 100000\n"}, 5, id="hybrid"
        ),
    ],
)
def test_cores_are_those_of_the_tightest_quota(files: dict[str, str], num_cores: int, system: FakeSystem) -> None:
    assert count_usable_cores(system(files)) == num_cores


def test_cores_are_those_of_the_affinity_if_that_is_tighter(
    system: FakeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = system({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert count_usable_cores(root) == 1


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "536870912\n"}, id="v2"),
        pytest.param(
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/memory.max": "max\n",
                "sys/fs/cgroup/a/memory.max": "536870912\n",
            },
            id="v2, limit of the parent",
        ),
        pytest.param(
            {"proc/self/cgroup": "4:memory:/docker/x\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n"},
            id="v1",
        ),
    ],
)
def test_memory_is_the_tightest_limit(files: dict[str, str], system: FakeSystem) -> None:
    assert read_memory_limit_bytes(system(files)) == 512 << 20


def test_an_unlimited_group_has_the_machines_memory(system: FakeSystem) -> None:
    machine_bytes = read_memory_limit_bytes(system({}))
    files = {
        "proc/self/cgroup": "4:memory:/\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory.max": "max\n",
    }
    assert read_memory_limit_bytes(system(files)) == machine_bytes > 0


def test_this_machine_has_cores_and_memory() -> None:
    assert count_usable_cores() >= 1
    assert read_memory_limit_bytes() > 64 << 20


def test_the_kv_cache_takes_an_eighth_of_the_memory_and_at_most_256_mib() -> None:
    assert choose_kv_cache_bytes(512 << 20) == 64 << 20
    assert choose_kv_cache_bytes(64 << 30) == 256 << 20
