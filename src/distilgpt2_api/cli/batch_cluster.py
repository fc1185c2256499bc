"""A batch's lines answered by a Ray cluster. What speaks with that is a process of its own, whose frames come here."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from typing import BinaryIO

from distilgpt2_api.batch.errors import ClusterError
from distilgpt2_api.batch.files.cluster_pipe import Assignment, Frame, FrameKind, read_frames
from distilgpt2_api.batch.files.line_output import LineOutput
from distilgpt2_api.batch.files.ordered_writer import OrderedWriter
from distilgpt2_api.core.errors import SettingsError

DRIVER = "distilgpt2_api.scale_out.ray_batch"
MAX_FRUITLESS_PASSES = 3
"""In a row: so often a cluster may lose workers without one line that is answered."""
END_TIMEOUT_S = 10.0


def check_ray() -> None:
    """Raises SettingsError where the packages are not installed."""
    if find_spec("ray") is None or find_spec("pyarrow") is None:
        raise SettingsError("--ray needs more packages: pip install 'distilgpt2-api[ray]'")


def finish_on_cluster(
    begin: Callable[[], tuple[Assignment, OrderedWriter]],
    *,
    num_pending_lines: int,
    environment: Mapping[str, str],
    driver: str = DRIVER,
) -> None:
    """Answer all lines: pass after pass, for a worker that is lost takes those with it that it had in hand.

    `begin` is asked for what is left, before each pass; `driver` is a module to run. Raises ClusterError, or
    BatchFileError; what is written by then stays, and another run goes on from there.
    """
    num_fruitless = 0
    while num_pending_lines > 0:
        assignment, writer = begin()
        why = _pass(assignment, writer, environment, driver)
        num_pending_lines -= writer.num_written
        num_fruitless = 0 if writer.num_written else num_fruitless + 1
        if num_fruitless == MAX_FRUITLESS_PASSES:
            raise ClusterError(f"the cluster loses its workers before they answer a line: {why}")


def _pass(assignment: Assignment, writer: OrderedWriter, environment: Mapping[str, str], driver: str) -> str:
    """Until the driver has ended. What has been lost, where something has. Raises ClusterError, BatchFileError."""
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        process, frames = _start([sys.executable, "-P", "-m", driver], assignment, log, environment, stack)
        for frame in read_frames(frames):
            if frame.kind in (FrameKind.ANSWERED, FrameKind.FAILED):
                writer.submit(frame.position, _line_output(frame))
            elif frame.kind is FrameKind.REFUSED:
                raise ClusterError(frame.content.decode())
            else:
                return frame.content.decode() or "some of them are gone"
        _end(process)  # before what it says of its end is read
        log.seek(0)
        raise ClusterError(_last_words(log.read().decode(errors="replace")))


def _start(
    command: list[str], assignment: Assignment, log: BinaryIO, environment: Mapping[str, str], stack: ExitStack
) -> tuple[subprocess.Popen[bytes], BinaryIO]:
    """A driver that has begun, and ends with `stack`, and its frames."""
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
            start_new_session=True,  # Ctrl-C is for us, and what becomes of the driver too
        )
    assert process.stdin is not None
    stack.callback(_end, process)
    stack.callback(process.stdin.close)
    process.stdin.write(assignment.to_json())
    process.stdin.flush()
    return process, frames


def _end(process: subprocess.Popen[bytes]) -> None:
    """It ends by itself, once its standard input is closed."""
    try:
        process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _line_output(frame: Frame) -> LineOutput:
    return LineOutput(num_bytes=frame.num_bytes, content=frame.content, is_failed=frame.kind is FrameKind.FAILED)


def _last_words(log: str) -> str:
    """Of a driver that has said nothing in its frames."""
    if "Traceback" in log:
        return f"the process that speaks with Ray has failed: {log.strip().splitlines()[-1][:300]}"
    return "the Ray cluster is gone"
