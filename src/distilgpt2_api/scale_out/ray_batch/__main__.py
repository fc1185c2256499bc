"""`python -m distilgpt2_api.scale_out.ray_batch DESCRIPTOR`: an assignment on standard input, frames to the descriptor.

It exits when its standard input closes, in case its parent process was killed.
"""

import os
import socket
import sys
import threading
from typing import BinaryIO

import ray
from ray.exceptions import RayError, RayTaskError

from distilgpt2_api.batch.errors import ClusterError
from distilgpt2_api.batch.files.cluster_pipe import ANY_CLUSTER, Assignment, Frame, FrameKind
from distilgpt2_api.scale_out.ray_batch.pipeline import frames
from distilgpt2_api.settings.sources import own_environment

CONNECT_TIMEOUT_S = 5.0


def main(source: BinaryIO, target: BinaryIO) -> None:
    """Writes the frames of one assignment. The last frame tells how it ended."""
    assignment = Assignment.from_json(source.readline())
    threading.Thread(target=_end_with, args=(source,), daemon=True).start()
    try:
        connect(assignment.address)
        for content in frames(assignment):
            target.write(content)
            target.flush()
        last = Frame(kind=FrameKind.ENDED)
    except ClusterError as error:
        last = Frame(kind=FrameKind.REFUSED, content=str(error).encode())
    except RayError as error:
        last = _last_frame(error)
    ray.shutdown()  # before the last frame, after which the parent may end this process
    target.write(last.to_bytes())
    target.flush()


def connect(address: str) -> None:
    """Raises ClusterError."""
    host, _, port = address.rpartition(":")
    try:
        if port.isdecimal():  # Ray itself would retry for a minute
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
        ray.init(
            address=address, log_to_driver=False, logging_level="error", runtime_env={"env_vars": own_environment()}
        )
    except (OSError, RuntimeError, ValueError, RayError) as error:
        if address == ANY_CLUSTER and isinstance(error, ConnectionError):
            raise ClusterError(
                "this machine is a node of no Ray cluster: start one with `ray start --head`, or give --ray-address"
            ) from None
        raise ClusterError(f"can't reach a Ray cluster at {address}: {_first_line(error)}") from None


def _last_frame(error: RayError) -> Frame:
    """REFUSED for an error that a worker raised, which it would raise on any node; LOST if a worker was lost."""
    if isinstance(error, RayTaskError) and not isinstance(error.cause, RayError):
        why = str(error).strip().rpartition("\n")[2]
        return Frame(kind=FrameKind.REFUSED, content=f"a worker failed: {why}".encode())
    return Frame(kind=FrameKind.LOST, content=_first_line(error).encode())


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _end_with(source: BinaryIO) -> None:
    source.read()
    os._exit(1)


if __name__ == "__main__":
    with os.fdopen(int(sys.argv[1]), "wb") as target:
        main(sys.stdin.buffer, target)
