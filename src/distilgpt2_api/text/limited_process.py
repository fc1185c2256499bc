"""Runs work on untrusted input in a limited process: input that takes too much ends that process, not the service.

`LimitedProcess`, the owner, starts a helper with the first task and exchanges lines of JSON with it. The helper
(`serve`) imports only what the work needs and has no threads. It forks one child for each task, ahead of the task, so
that no task waits for the fork. The child has limits on CPU time and memory, and can't open files or sockets. Decision
0015 gives the reasons.
"""

from __future__ import annotations

import gc
import json
import math
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

MAX_GROWTH_BYTES = 64 * 1024 * 1024
"""Memory that a task may take beyond what the helper has."""
MAX_ANSWER_BYTES = 64 * 1024 * 1024
DEADLINE_S = 30.0
"""From sending a task to its answer: a bound for processes that wait or are throttled. CPU time ends earlier."""
ANSWERED, FAILED, HAD_NO_TASK = 0, 1, 2
"""How a child ends."""


class LimitedProcess:
    """Owns the helper. Any thread may call it; tasks run one at a time."""

    def __init__(self, module: str, *, preparation: object = None) -> None:
        """`module` calls `serve` when it is run, and gets `preparation`, which is JSON, before its first task."""
        self._module = module
        self._preparation = preparation
        self._lock = threading.Lock()
        self._helper: Helper | None = None

    def run(self, task: object, *, max_cpu_s: float) -> Any:
        """The answer to `task`, both as JSON. None if the task took too much or crashed; the next one runs as usual.

        Raises OSError if the helper can't be started.
        """
        with self._lock:
            if self._helper is None or self._helper.has_ended():
                self._stop()
                self._helper = self._start()
            try:
                return self._helper.run(task, max_cpu_s)
            except (OSError, ValueError):
                self._stop()
                return None

    def close(self) -> None:
        """End the helper. Idempotent; the next task starts another one."""
        with self._lock:
            self._stop()

    def _start(self) -> Helper:
        helper = Helper(self._module)
        try:
            helper.exchange(self._preparation)
        except OSError:
            helper.kill()
            raise
        return helper

    def _stop(self) -> None:
        if self._helper is not None:
            self._helper.kill()
            self._helper = None


class Helper:
    """One running helper, and the socket that is its standard input and output."""

    def __init__(self, module: str) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own module, by our own Python
                    [sys.executable, "-P", "-m", module],
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=subprocess.DEVNULL,  # A crash could print the caller's input.
                    env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # none of the service's secrets
                    start_new_session=True,  # Ctrl-C is for the service, which ends the helper.
                )
            except OSError:
                self._socket.close()
                raise

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def run(self, task: object, max_cpu_s: float) -> Any:
        """As `LimitedProcess.run`. Raises OSError or ValueError if there is no answer to this task."""
        key = secrets.token_hex(8)  # No child can guess the next task's key, and answer it.
        answer = self.exchange({"key": key, "task": task, "max_cpu_s": max_cpu_s})
        if answer is None:
            return None
        if answer["key"] != key:
            raise ValueError("the answer is to another task: a child has ended between two")
        return answer["answer"]

    def exchange(self, message: object) -> Any:
        """Send a line and receive one. Raises OSError or ValueError."""
        deadline = time.monotonic() + DEADLINE_S
        self._socket.settimeout(DEADLINE_S)
        self._socket.sendall(json.dumps(message).encode() + b"\n")
        line = bytearray()
        while not line.endswith(b"\n"):
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            part = self._socket.recv(1 << 18)
            if not part or len(line) > MAX_ANSWER_BYTES:
                raise ConnectionError("the helper has ended, or its answer is too long")
            line += part
        return json.loads(line)

    def kill(self) -> None:
        """End the helper and its child."""
        with suppress(ProcessLookupError):  # It has ended, and its child with it.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._socket.close()


def serve(
    call: Callable[[Any], object], *, prepare: Callable[[Any], object] | None = None, has_threads: bool = False
) -> None:
    """The helper's main loop, which ends with the owner. Children make the `call`s; the helper itself prepares them.

    `has_threads`: a call starts threads. Otherwise a child can start neither threads nor processes, unless it is root.
    """
    limits = [resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE]
    if not has_threads:
        limits.append(resource.RLIMIT_NPROC)
    preparation = json.loads(sys.stdin.buffer.readline())
    if prepare is not None and preparation is not None:
        prepare(preparation)
    _send("ready")
    gc.freeze()  # A child copies no memory that its garbage collection need not visit.
    while True:
        child = os.fork()
        if child == 0:
            _answer(call, limits)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == HAD_NO_TASK:
            return
        if os.waitstatus_to_exitcode(status) != ANSWERED:
            _send(None)


def _answer(call: Callable[[Any], object], limits: Sequence[int]) -> NoReturn:
    """The child. `limits` are set to 0."""
    status = HAD_NO_TASK
    try:
        _limit_memory()
        for limit in limits:
            resource.setrlimit(limit, (0, 0))
        request = json.loads(sys.stdin.buffer.readline())
        status = FAILED
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(request["max_cpu_s"]),) * 2)
        signal.setitimer(signal.ITIMER_PROF, request["max_cpu_s"])  # Ends the process, as RLIMIT_CPU, but finer.
        answer = call(request["task"])
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send({"key": request["key"], "answer": answer})
        status = ANSWERED
    finally:
        os._exit(status)


def _limit_memory() -> None:
    statm = Path("/proc/self/statm")
    if statm.exists():  # Linux; other systems don't limit a process's memory.
        num_pages = int(statm.read_bytes().split()[5])  # data and stacks
        max_bytes = num_pages * resource.getpagesize() + MAX_GROWTH_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (max_bytes, max_bytes))


def _send(message: object) -> None:
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
    sys.stdout.buffer.flush()
