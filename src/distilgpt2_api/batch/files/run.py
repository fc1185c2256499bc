"""Keeps enough lines in flight to fill an engine; each is read when needed, and written once."""

import asyncio

from distilgpt2_api.batch.custom_ids import CustomIds
from distilgpt2_api.batch.files.input_file import InputFile
from distilgpt2_api.batch.files.line_ids import CompletedLines
from distilgpt2_api.batch.files.line_output import LineHandler, LineOutput, answer_line
from distilgpt2_api.batch.files.ordered_writer import OrderedWriter
from distilgpt2_api.batch.files.pending_lines import PendingLines

MAX_HELD_BYTES = 64 << 20
"""Limit on answers that wait for an earlier line: above it no new line starts."""
YIELD_EVERY_LINES = 256
"""Complete lines that are skipped before other tasks get to run."""


class Run:
    """One run over the pending lines. Mutable, for one event loop, used once."""

    def __init__(
        self,
        source: InputFile,
        *,
        writer: OrderedWriter,
        completed: CompletedLines,
        custom_ids: CustomIds,
        handle_line: LineHandler,
        max_held_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        self._format = source.format
        self._lines = PendingLines(source, completed=completed, custom_ids=custom_ids)
        self._writer = writer
        self._handle_line = handle_line
        self._max_held_bytes = max_held_bytes
        self._num_passed = 0
        self._has_room = asyncio.Event()
        self._has_room.set()

    async def finish(self, *, max_in_flight: int) -> None:
        """Answers all pending lines. Raises what `handle_line` raises, or BatchFileError.

        Whatever was written before an error stays, and another run continues from there.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(max_in_flight):
                    group.create_task(self._work())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _work(self) -> None:
        """Answers one line after another. The earliest line is never held back, so waiting answers drain eventually."""
        while True:
            await self._has_room.wait()
            try:
                one = next(self._lines)
            except StopIteration:
                return
            if one is None:
                self._num_passed += 1
                if not self._num_passed % YIELD_EVERY_LINES:
                    await asyncio.sleep(0)
            else:
                self._submit(one.position, await answer_line(one, self._format, self._handle_line))
                # A line may fail without a single wait: let signals and other lines run.
                await asyncio.sleep(0)

    def _submit(self, position: int, line_output: LineOutput) -> None:
        self._writer.submit(position, line_output)
        if self._writer.held_bytes < self._max_held_bytes:
            self._has_room.set()
        else:
            self._has_room.clear()
