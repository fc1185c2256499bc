"""The cores and memory that this process may use: the limits of its control groups, not the host's totals.

Reads `cpu.max` and `memory.max` (cgroup v2), `cpu.cfs_quota_us` and `memory.limit_in_bytes` (v1), and the CPU affinity
(which a cpuset narrows as well). A parent group's limit binds too, so every group up to the root is read.
https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path

AUTO_KV_CACHE_BYTES = 256 << 20
AUTO_KV_CACHE_SHARE = 8
"""The KV cache takes at most `AUTO_KV_CACHE_BYTES`, and at most memory / `AUTO_KV_CACHE_SHARE`."""

SYSTEM_ROOT = Path("/")
AUTO_MAX_CONNECTIONS = 16384
AUTO_CONNECTION_SHARE_BYTES = 64 << 10
"""Memory per allowed connection; an idle one takes about a fifth of it."""
RESERVED_FILES = 128
"""Most open files that are not connections."""


def count_usable_cores(root: Path = SYSTEM_ROOT) -> int:
    """Whole cores, at least 1. A quota of 1.5 counts as 1: the rest serves HTTP, or all threads would be throttled."""
    try:
        num_cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        num_cores = os.cpu_count() or 1
    return max(1, math.floor(min([num_cores, *_read_cpu_quotas(root)])))


def read_memory_limit_bytes(root: Path = SYSTEM_ROOT) -> int:
    """The tightest limit of a control group, the process's own (`ulimit -v`), or the machine's memory."""
    machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    own_bytes, _ = resource.getrlimit(resource.RLIMIT_AS)
    limits = [machine_bytes, *_read_memory_limits(root)]
    return min(limits if own_bytes == resource.RLIM_INFINITY else [*limits, own_bytes])


def choose_kv_cache_bytes(memory_limit_bytes: int) -> int:
    """The KV cache's default size: small, because the service shares its machine."""
    return min(AUTO_KV_CACHE_BYTES, memory_limit_bytes // AUTO_KV_CACHE_SHARE)


def choose_max_connections(memory_limit_bytes: int) -> int:
    """The most connections that the open-file limit (less `RESERVED_FILES`) and a small share of memory allow."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    openable = AUTO_MAX_CONNECTIONS if hard == resource.RLIM_INFINITY else hard - RESERVED_FILES
    return max(16, min(AUTO_MAX_CONNECTIONS, openable, memory_limit_bytes // AUTO_CONNECTION_SHARE_BYTES))


def allow_open_files(num_connections: int) -> None:
    """Raises this process's soft limit for `num_connections`, up to the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = num_connections + RESERVED_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _read_cpu_quotas(root: Path) -> Iterator[float]:
    """Quota divided by period, in cores, of each group that has a quota."""
    for group in _groups(root, "cpu"):
        match _read_words(group / "cpu.max"):
            case [quota, period] if quota.isdecimal() and period.isdecimal():
                yield int(quota) / int(period)
        match (_read_words(group / "cpu.cfs_quota_us"), _read_words(group / "cpu.cfs_period_us")):
            case ([quota], [period]) if quota.isdecimal() and period.isdecimal():  # no quota is -1
                yield int(quota) / int(period)


def _read_memory_limits(root: Path) -> Iterator[int]:
    for group in _groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            match _read_words(group / name):
                case [limit] if limit.isdecimal():  # no limit is `max` in v2, a huge number in v1
                    yield int(limit)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's groups for `controller`, innermost first, v1 and v2.

    A container without its own cgroup namespace reports the host's path, but mounts its group at the root. The walk
    up ends at the root in both cases.
    """
    mount = root / "sys/fs/cgroup"
    for line in _read_lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:  # v2: one tree for all controllers; beside v1 trees it has its own folder
            trees = [mount, mount / "unified"]
        elif controller in controllers.split(","):
            trees = [mount / controllers, mount / controller]
        else:
            continue
        inner = Path(path.lstrip("/"))
        for tree in trees:
            yield from (tree / part for part in (inner, *inner.parents))


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # not Linux, or not readable
        return []


def _read_words(path: Path) -> list[str]:
    return " ".join(_read_lines(path)).split()
