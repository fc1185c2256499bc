"""A benchmark ends the processes that it starts, also when it is terminated itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.owned_process import OwnedProcess, children_of

PROGRAM = """
import sys
from benchmarks.owned_process import OwnedProcess, exit_on_sigterm
exit_on_sigterm()
process = OwnedProcess([sys.executable, "-c", "print('here', flush=True); input()"], is_asked=True)
try:
    process.read_line()
    print(process.pid, flush=True)
    input()
finally:
    process.stop()
"""


def test_a_terminated_benchmark_ends_the_processes_that_it_started() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as benchmark:
        assert benchmark.stdout is not None
        pid = int(benchmark.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        benchmark.send_signal(signal.SIGTERM)

        assert benchmark.wait(30) == 128 + signal.SIGTERM
    assert not Path(f"/proc/{pid}").exists()


def test_a_process_answers_and_its_costs_include_its_children() -> None:
    """The process uses some CPU time in a child, answers, and waits."""
    burn = "sum(range(3_000_000)); print('burnt', flush=True); input()"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    process = OwnedProcess([sys.executable, "-c", program], is_asked=True)
    try:
        assert process.read_line() == b"burnt\n"
        (child,) = children_of(process.pid)
        own_rss_bytes = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        assert process.cpu_s() > 0
        assert process.rss_bytes() > own_rss_bytes
        assert Path(f"/proc/{child}").exists()
        process.write_line("go on")
        assert process.wait_exit(30) == 0
        with pytest.raises(RuntimeError, match="ended with status 0"):
            process.check_running()
        with pytest.raises(RuntimeError, match="ended with status 0"):
            process.read_line()
    finally:
        process.stop()
