"""A reader's terminal: one shell that stays open, so that variables and the activated environment stay, too."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

INTERVAL_S = 0.02
BEGIN = "trap : INT\nset -o pipefail\n"
"""After Ctrl+C the shell goes on, as a terminal's does."""
LINE = "failed=0; trap 'failed=$?' ERR; . {script} </dev/null; trap - ERR; echo; echo {marker} $failed\n"


class CommandsFailed(AssertionError):
    """A block's commands failed, or did not end in time. Its text has their output."""


class Terminal:
    """Types blocks of commands into one shell. Mutable: the shell runs at most one block."""

    def __init__(self, folder: Path, environment: Mapping[str, str], scratch: Path) -> None:
        """`scratch`: an empty folder for the typed blocks and the output."""
        self._scratch = scratch
        self._output_file = scratch / "output"
        self._num_blocks = 0
        self._num_read_bytes = 0
        with self._output_file.open("wb") as output:
            self._shell = subprocess.Popen(
                # A program in the background of a script ignores Ctrl+C, and so would all that it starts.
                ["env", "--default-signal=INT", "bash", "--noprofile", "--norc"],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                bufsize=0,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._write(BEGIN)

    @property
    def output(self) -> str:
        """The output of the latest block so far."""
        return self._output_file.read_bytes()[self._num_read_bytes :].decode(errors="replace")

    def begin(self, text: str) -> None:
        """Type the block, and don't wait for its end."""
        self._num_read_bytes = self._output_file.stat().st_size
        self._num_blocks += 1
        script = self._scratch / f"block-{self._num_blocks}"
        script.write_text(text, encoding="utf-8")
        self._write(LINE.format(script=script, marker=self._marker))

    def wait(self, *, timeout_s: float, until: Callable[[], bool] = lambda: False) -> None:
        """Wait for the block's end, or until the condition holds. Raises CommandsFailed."""
        end_s = time.monotonic() + timeout_s
        while not until():
            if (status := self._find_status()) is not None:
                if status != 0:
                    raise CommandsFailed(f"exit status {status}\n{self.output}")
                return
            if time.monotonic() > end_s:
                raise CommandsFailed(f"not within {timeout_s:g} s\n{self.output}")
            time.sleep(INTERVAL_S)

    def run(self, text: str, *, timeout_s: float) -> str:
        """Type the block and wait for its end. Returns its output. Raises CommandsFailed."""
        self.begin(text)
        self.wait(timeout_s=timeout_s)
        return self.output

    def interrupt(self, *, timeout_s: float) -> None:
        """Ctrl+C: every program of the running block gets SIGINT. Waits for the block's end, whatever its status is."""
        os.killpg(self._shell.pid, signal.SIGINT)
        with contextlib.suppress(CommandsFailed):
            self.wait(timeout_s=timeout_s)
        assert self._find_status() is not None, f"Ctrl+C did not end it within {timeout_s:g} s\n{self.output}"

    def close(self) -> None:
        """Close the window. A program that still runs in it ends."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGTERM)
        assert self._shell.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._shell.stdin.close()
        try:
            self._shell.wait(10)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._shell.pid, signal.SIGKILL)

    @property
    def _marker(self) -> str:
        return f"---- block {self._num_blocks} of {self._shell.pid} ended with"

    def _find_status(self) -> int | None:
        """The ended block's status; None while it runs."""
        _, found, status = self.output.partition(f"\n{self._marker} ")
        if found and status.endswith("\n"):
            return int(status)
        assert self._shell.poll() is None, f"the block has ended the shell\n{self.output}"
        return None

    def _write(self, text: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(text.encode())
