"""Connections and the limit on open files that bounds them (`ulimit -n`)."""

from __future__ import annotations

import resource

AUTO_MAX_CONNECTIONS = 16384
AUTO_CONNECTION_SHARE_BYTES = 64 << 10
"""One connection for so much memory: an idle one takes about a fifth of it."""
RESERVED_FILES = 128
"""Files that are open for other things than connections, at most."""


def choose_max_connections(memory_limit_bytes: int) -> int:
    """As many as open files allow, but for those that are needed otherwise, and a modest part of the memory."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    openable = AUTO_MAX_CONNECTIONS if hard == resource.RLIM_INFINITY else hard - RESERVED_FILES
    return max(16, min(AUTO_MAX_CONNECTIONS, openable, memory_limit_bytes // AUTO_CONNECTION_SHARE_BYTES))


def allow_open_files(num_connections: int) -> None:
    """Raise this process's soft limit, as far as it may, so that it can hold so many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = num_connections + RESERVED_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
