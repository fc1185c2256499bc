"""Shows a batch's progress: a bar with the time left on a terminal, else a line at intervals."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Self, TextIO

from distilgpt2_api.batch.files.line_output import LineOutput
from distilgpt2_api.batch.files.recovery import ResumeState

BAR_INTERVAL_S = 0.1
LINE_INTERVAL_S = 30.0
ESTIMATE_AFTER_S = 3.0
"""Before, most lines that will be done soon are still in flight, and the time left would seem much longer."""
BAR_WIDTH = 30
ERASE_REST = "\x1b[K"


class BatchProgress:
    """Counts lines as they are written, and shows progress on `stream`. Mutable; a context manager."""

    def __init__(self, state: ResumeState, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._interval_s = BAR_INTERVAL_S if self._is_terminal else LINE_INTERVAL_S
        self._clock = clock
        self._num_bytes = state.num_bytes
        self._num_done_bytes = 0
        self.num_done_lines = state.num_answered_lines + state.num_failed_lines
        """Lines with an answer or an error, including those of earlier runs. Read-only for others."""
        self.num_failed_lines = state.num_failed_lines
        """Read-only for others."""

    def note(self, line_output: LineOutput) -> None:
        """Counts a line that was written."""
        self.num_done_lines += 1
        self.num_failed_lines += line_output.is_failed
        self._num_done_bytes += line_output.num_bytes
        if (now_s := self._clock()) - self._shown_s >= self._interval_s:
            self._show(now_s)

    def __enter__(self) -> Self:
        self._began_s = self._shown_s = self._clock()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._is_terminal and self._num_done_bytes:
            self._show(self._clock())
            self._stream.write("\n")

    def _show(self, now_s: float) -> None:
        self._shown_s = now_s
        share = self._num_done_bytes / self._num_bytes
        seconds = now_s - self._began_s
        left = timedelta(seconds=round(seconds * (1 / share - 1)))
        estimate = f", {left} left" if seconds >= ESTIMATE_AFTER_S or share == 1 else ""
        failed = f", {self.num_failed_lines} failed" if self.num_failed_lines else ""
        lines = "line" if self.num_done_lines == 1 else "lines"
        text = f"{share:4.0%}  {self.num_done_lines} {lines}{failed}{estimate}"
        if self._is_terminal:
            bar = "#" * round(share * BAR_WIDTH)
            self._stream.write(f"\r[{bar:-<{BAR_WIDTH}}] {text}{ERASE_REST}")
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()
