"""Lines in flight: as many as keep an engine busy, read as they are needed, each written once and in turn."""

from __future__ import annotations

import asyncio

from distilgpt2_api.batch.custom_ids import CustomIds
from distilgpt2_api.batch.input_file import InputFile
from distilgpt2_api.batch.line_ids import DoneLines
from distilgpt2_api.batch.open_lines import OpenLines
from distilgpt2_api.batch.outcomes import Execute, Outcome, find_outcome
from distilgpt2_api.batch.turns import Turns

MAX_HELD_BYTES = 64 << 20
"""Of answers that wait for an earlier line's: beyond it no line begins until that is there."""
BREATH_LINES = 256
"""Lines that are done already and are passed over between two looks at the event loop."""


class Run:
    """Mutable: what is in flight. One event loop's, used once."""

    def __init__(
        self,
        source: InputFile,
        *,
        turns: Turns,
        done: DoneLines,
        custom_ids: CustomIds,
        execute: Execute,
        max_held_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        self._format = source.format
        self._lines = OpenLines(source, done=done, custom_ids=custom_ids)
        self._turns = turns
        self._execute = execute
        self._max_held_bytes = max_held_bytes
        self._num_passed = 0
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
            try:
                one = next(self._lines)
            except StopIteration:
                return
            if one is None:
                await self._breathe()
            else:
                self._settle(one.turn, await find_outcome(one, self._format, self._execute))
                # A line that fails may do so without ever having waited: signals and the lines in flight come first.
                await asyncio.sleep(0)

    def _settle(self, turn: int, outcome: Outcome) -> None:
        self._turns.settle(turn, outcome)
        if self._turns.held_bytes < self._max_held_bytes:
            self._has_room.set()
        else:
            self._has_room.clear()

    async def _breathe(self) -> None:
        self._num_passed += 1
        if not self._num_passed % BREATH_LINES:
            await asyncio.sleep(0)
