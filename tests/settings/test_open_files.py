"""The number of connections under limits on open files and memory, in subprocesses: hard limits only go down."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource
from distilgpt2_api.settings.host_resources import allow_open_files, choose_max_connections
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
num_connections = choose_max_connections({memory_bytes})
allow_open_files(num_connections)
print(num_connections, *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "memory_bytes", "num_connections", "soft_after"),
    [
        pytest.param(64, 1024, 1 << 40, 896, 1024, id="limited by open files"),
        pytest.param(64, 1024, 16 << 20, 256, 384, id="limited by memory"),
        pytest.param(512, 1024, 16 << 20, 256, 512, id="soft limit is high enough"),
        pytest.param(64, 130, 1 << 40, 16, 130, id="never fewer than 16"),
    ],
)
def test_the_number_of_connections_follows_open_files_and_memory(
    soft: int, hard: int, memory_bytes: int, num_connections: int, soft_after: int
) -> None:
    """The soft limit on open files is raised for them, never lowered."""
    program = PROGRAM.format(soft=soft, hard=hard, memory_bytes=memory_bytes)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == [str(number) for number in (num_connections, soft_after, hard)]
