"""Lines in flight: as many as keep an engine busy, read as they are needed, each written once and in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from distilgpt2_api.batch.custom_ids import CustomIds
from distilgpt2_api.batch.input_file import InputFile
from distilgpt2_api.batch.line_ids import DoneLines, line_id
from distilgpt2_api.batch.lines import Answer, InputLine, LineError, answered_line, failed_line
from distilgpt2_api.batch.output_file import OutputFile
from distilgpt2_api.batch.records import Record

MAX_HELD_BYTES = 64 << 20
"""Of answers that wait for an earlier line's: beyond it no line begins until that is there."""
BREATH_LINES = 256
"""So many lines that need no answer are passed over between two looks at the event loop."""

Execute = Callable[[InputLine], Awaitable[Answer]]
"""What answers a line. Its exceptions end the run: an error of one line is an answer too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is written for a record: an answer, or an error into the file of errors."""

    record: Record
    content: bytes
    is_failed: bool


class Run:
    """Mutable: what is in flight. One event loop's, used once. The files are the caller's to close."""

    def __init__(
        self,
        source: InputFile,
        *,
        output: OutputFile,
        errors: OutputFile,
        done: DoneLines,
        custom_ids: CustomIds,
        execute: Execute,
        is_ordered: bool,
        on_written: Callable[[Outcome], None],
        max_held_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        self._format = source.format
        self._has_custom_ids = not source.is_table
        self._records = source.records()
        self._output = output
        self._errors = errors
        self._done = done
        self._custom_ids = custom_ids
        self._execute = execute
        self._is_ordered = is_ordered
        self._on_written = on_written
        self._max_held_bytes = max_held_bytes
        self._num_begun = 0
        self._num_passed = 0
        self._held: dict[int, Outcome] = {}
        """Turn to what waits for an earlier one."""
        self._next_turn = 0
        self._held_bytes = 0
        self._has_room = asyncio.Event()
        self._has_room.set()

    async def finish(self, *, max_in_flight: int) -> None:
        """Answer all lines that are not done. Raises what `execute` raises, or BatchFileError; what is written by then
        stays, and another run goes on from there.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(max_in_flight):
                    group.create_task(self._work())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _work(self) -> None:
        """One line after another. Whoever has the earliest line is never held up, so that room comes again."""
        while True:
            await self._has_room.wait()
            record = next(self._records, None)
            if record is None:
                return
            line = self._read(record)
            if self._done.find(record.number) is not None:
                await self._breathe()
                continue
            turn = self._num_begun
            self._num_begun += 1
            if isinstance(line, LineError):
                self._settle(turn, _failure(record, line))
                await self._breathe()
            else:
                self._settle(turn, self._outcome(record, line, await self._execute(line)))

    def _read(self, record: Record) -> InputLine | LineError:
        """Of lines that are done too, for their custom ids."""
        try:
            line = self._format.parse(record)
            if self._has_custom_ids:
                self._custom_ids.add(line.custom_id, number=line.number)
        except LineError as error:
            return error
        return line

    def _outcome(self, record: Record, line: InputLine, answer: Answer) -> Outcome:
        if answer.is_success:
            return Outcome(record=record, content=self._format.write(record, line, answer), is_failed=False)
        content = answered_line(line_id(record), line.custom_id, answer)
        return Outcome(record=record, content=content, is_failed=True)

    def _settle(self, turn: int, outcome: Outcome) -> None:
        if not self._is_ordered:
            self._write(outcome)
            return
        self._held[turn] = outcome
        self._held_bytes += len(outcome.content)
        while (first := self._held.pop(self._next_turn, None)) is not None:
            self._next_turn += 1
            self._held_bytes -= len(first.content)
            self._write(first)
        if self._held_bytes < self._max_held_bytes:
            self._has_room.set()
        else:
            self._has_room.clear()

    def _write(self, outcome: Outcome) -> None:
        (self._errors if outcome.is_failed else self._output).append(outcome.content)
        self._on_written(outcome)

    async def _breathe(self) -> None:
        self._num_passed += 1
        if not self._num_passed % BREATH_LINES:
            await asyncio.sleep(0)


def _failure(record: Record, error: LineError) -> Outcome:
    content = failed_line(
        line_id(record), error.custom_id, code=error.code, message=str(error), number=error.number, param=error.param
    )
    return Outcome(record=record, content=content, is_failed=True)
