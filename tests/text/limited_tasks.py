"""The tasks that the tests of the limited process give it."""

from __future__ import annotations

import ctypes
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distilgpt2_api.text.limited_process import serve

prepared: list[Any] = []


def spin() -> None:
    while True:
        pass


TASKS: dict[str, Callable[..., object]] = {
    "echo": lambda value: value,
    "prepared": lambda: prepared,
    "environment": lambda: sorted(os.environ),
    "read": Path("/proc/self/environ").read_text,
    "write": lambda folder: Path(folder, "file").write_text("x"),
    "connect": lambda: socket.socket() is not None,
    "allocate": lambda: len(bytearray(1 << 30)),
    "spin": spin,
    "sleep": lambda: time.sleep(60),
    "crash": lambda: ctypes.string_at(0),
}

if __name__ == "__main__":
    serve(lambda task: TASKS[task[0]](*task[1:]), prepare=prepared.append)
