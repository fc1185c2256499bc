"""Answers a batch on a Ray cluster: a driver process talks to Ray and returns frames over a pipe."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from typing import BinaryIO

from distilgpt2_api.batch.errors import ClusterError
from distilgpt2_api.batch.files.cluster_pipe import Assignment, FrameKind, read_frames
from distilgpt2_api.batch.files.line_output import LineOutput
from distilgpt2_api.batch.files.ordered_writer import OrderedWriter
from distilgpt2_api.core.errors import SettingsError

DRIVER = "distilgpt2_api.scale_out.ray_batch"
MAX_FRUITLESS_PASSES = 3
"""Consecutive passes in which the cluster may lose workers without answering a line."""
END_TIMEOUT_S = 10.0


def check_ray() -> None:
    """Raises SettingsError if the packages are not installed."""
    if find_spec("ray") is None or find_spec("pyarrow") is None:
        raise SettingsError.missing_extra("--ray", "ray")


def finish_on_cluster(
    begin: Callable[[], tuple[Assignment, OrderedWriter]],
    *,
    num_pending_lines: int,
    environment: Mapping[str, str],
    driver: str = DRIVER,
) -> None:
    """Answers all lines. If workers are lost, another pass repeats their lines.

    `begin` returns what remains, before each pass; `driver` is a module to run. Raises ClusterError or BatchFileError.
    Whatever was written before an error stays, and another run continues from there.
    """
    num_fruitless = 0
    while num_pending_lines > 0:
        assignment, writer = begin()
        why = _pass(assignment, writer, environment, driver)
        num_pending_lines -= writer.num_written
        num_fruitless = 0 if writer.num_written else num_fruitless + 1
        if num_fruitless == MAX_FRUITLESS_PASSES:
            raise ClusterError(f"the cluster lost its workers {num_fruitless} times before they answered a line: {why}")


def _pass(assignment: Assignment, writer: OrderedWriter, environment: Mapping[str, str], driver: str) -> str:
    """Runs one driver to its end. Returns what was lost, if anything. Raises ClusterError, BatchFileError."""
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        process, frames = _start([sys.executable, "-P", "-m", driver], assignment, log, environment, stack)
        for frame in read_frames(frames):
            if frame.kind in (FrameKind.ANSWERED, FrameKind.FAILED):
                is_failed = frame.kind is FrameKind.FAILED
                output = LineOutput(num_bytes=frame.num_bytes, content=frame.content, is_failed=is_failed)
                writer.submit(frame.position, output)
            elif frame.kind is FrameKind.REFUSED:
                raise ClusterError(frame.content.decode())
            else:
                return frame.content.decode() or "some workers were lost"
        _end(process)  # so that its log is complete
        log.seek(0)
        raise ClusterError(_describe_end(log.read().decode(errors="replace")))


def _start(
    command: list[str], assignment: Assignment, log: BinaryIO, environment: Mapping[str, str], stack: ExitStack
) -> tuple[subprocess.Popen[bytes], BinaryIO]:
    """Starts a driver, which ends with `stack`. Returns its process and its frames."""
    reading, writing = os.pipe()
    frames = stack.enter_context(os.fdopen(reading, "rb"))
    with os.fdopen(writing, "wb"):
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [*command, str(writing)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[writing],
            env=environment,
            start_new_session=True,  # only this process gets Ctrl-C; it then ends the driver
        )
    assert process.stdin is not None
    stack.callback(_end, process)
    stack.callback(process.stdin.close)
    process.stdin.write(assignment.to_json())
    process.stdin.flush()
    return process, frames


def _end(process: subprocess.Popen[bytes]) -> None:
    """Waits for the process, which ends when its standard input is closed."""
    try:
        process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _describe_end(log: str) -> str:
    """Why a driver ended without a final frame."""
    if "Traceback" in log:
        return f"the process that drives Ray has failed: {log.strip().splitlines()[-1][:300]}"
    return "the Ray cluster is gone"
