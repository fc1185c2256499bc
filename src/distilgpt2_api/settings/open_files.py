"""The number of connections, and the limit on open files (`ulimit -n`) that bounds it."""

from __future__ import annotations

import resource

AUTO_MAX_CONNECTIONS = 16384
AUTO_CONNECTION_SHARE_BYTES = 64 << 10
"""Memory per allowed connection; an idle one takes about a fifth of it."""
RESERVED_FILES = 128
"""Most open files that are not connections."""


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
