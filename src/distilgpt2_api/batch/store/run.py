"""Works on one batch from its claim to its end, or until another worker takes over."""

import asyncio
import logging
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any

import orjson

from distilgpt2_api.batch.errors import BatchFileError
from distilgpt2_api.batch.lines import Answer, InputLine, answered_line, failed_line, parse_line
from distilgpt2_api.batch.retries import ask_until_answered
from distilgpt2_api.batch.store.files import Files
from distilgpt2_api.batch.store.input_lines import check_lines, split_lines
from distilgpt2_api.batch.store.leased_batch import LeasedBatch
from distilgpt2_api.batch.store.leases import Leases
from distilgpt2_api.batch.store.objects import BatchStatus, InputError, LineResult, StoredBatch, TokenUsage
from distilgpt2_api.batch.store.ports import AskLine, BatchObserver, CheckModel
from distilgpt2_api.batch.store.threads import StoreThreads
from distilgpt2_api.core.errors import StoreError

logger = logging.getLogger(__name__)

LINES_AT_ONCE = 128
"""Lines read from the store in one call."""
UNANSWERED = {
    BatchStatus.EXPIRED: ("batch_expired", "This request could not be executed before the completion window expired."),
    BatchStatus.CANCELLED: ("batch_cancelled", "This request was not executed because the batch was cancelled."),
}
"""OpenAI's codes and messages for lines that were never answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunParts:
    """Dependencies that all runs of a worker share."""

    leases: Leases
    files: Files
    threads: StoreThreads
    ask: AskLine
    check_model: CheckModel
    observer: BatchObserver
    slots: asyncio.Semaphore
    """One for each line that may be in flight, over all batches."""
    max_lines: int
    max_line_bytes: int
    clock: Callable[[], float]


class BatchRun:
    """Works on a batch while its lease lasts."""

    def __init__(self, batch: StoredBatch, parts: RunParts) -> None:
        self._parts = parts
        self._leased = LeasedBatch(
            batch, leases=parts.leases, threads=parts.threads, observer=parts.observer, clock=parts.clock
        )

    @property
    def batch_id(self) -> str:
        return self._leased.batch.batch_id

    @property
    def caller(self) -> str:
        return self._leased.batch.caller

    async def work(self) -> None:
        """Runs until the batch ends. Gives the batch back if it fails or is cancelled.

        Raises LeaseLostError, StoreError.
        """
        try:
            await _race(self._advance(), self._leased.keep())
        finally:
            if self._leased.batch.is_open:
                await self._leased.give_back()
            else:
                self._report_end()

    async def _advance(self) -> None:
        leased_batch = self._leased
        if leased_batch.batch.status is BatchStatus.VALIDATING:
            await self._validate()
        if leased_batch.batch.status is BatchStatus.IN_PROGRESS:
            await self._ask_lines()
        if leased_batch.batch.status in (BatchStatus.FINALIZING, BatchStatus.CANCELLING):
            await self._finish()

    def _report_end(self) -> None:
        batch = self._leased.batch
        logger.info(
            "batch %s is %s: %d lines, %d answered, %d failed",
            batch.batch_id,
            batch.status.value,
            batch.num_lines,
            batch.num_completed,
            batch.num_failed,
        )
        self._parts.observer.on_batch_ended(batch.status)

    async def _validate(self) -> None:
        parts, leases, endpoint = self._parts, self._parts.leases, self._leased.batch.endpoint

        def check(stopping: threading.Event) -> tuple[int, tuple[InputError, ...]]:
            lines = takewhile(lambda _: not stopping.is_set(), self._read_lines())
            try:
                return check_lines(lines, endpoint=endpoint, max_lines=parts.max_lines, check_model=parts.check_model)
            except BatchFileError as error:  # the disk is full
                raise StoreError(str(error)) from error

        num_lines, errors = await self._parts.threads.call_long(check)
        if errors:
            await self._leased.change(lambda held: leases.fail(held, errors))
        else:
            await self._leased.change(lambda held: leases.begin(held, num_lines=num_lines))

    async def _ask_lines(self) -> None:
        leased_batch, leases = self._leased, self._parts.leases
        if leased_batch.is_late:
            leased_batch.is_over.set()
        await _race(self._ask_all(await self._recorded_numbers()), leased_batch.is_over.wait())
        await leased_batch.flush()
        if leased_batch.batch.status is BatchStatus.IN_PROGRESS:
            await leased_batch.change(leases.finalize if leased_batch.batch.has_all_results else leases.expire)

    async def _ask_all(self, recorded: Collection[int]) -> None:
        slots = self._parts.slots
        try:
            async with asyncio.TaskGroup() as asking:
                async for number, content in self._lines():
                    if number not in recorded:
                        await self._leased.wait_for_room()
                        await slots.acquire()
                        task = asking.create_task(self._ask(parse_line(content, number=number)))
                        task.add_done_callback(lambda _: slots.release())  # even if it is cancelled before it starts
        except ExceptionGroup as group:
            raise group.exceptions[0] from group

    async def _ask(self, line: InputLine) -> None:
        answer = await ask_until_answered(lambda: self._parts.ask(self.caller, line))
        self._leased.add(
            LineResult(
                number=line.number,
                content=answered_line(_new_line_id(), line.custom_id, answer),
                is_success=answer.is_success,
                usage=_usage_of(answer) if answer.is_success else TokenUsage(),
            )
        )

    async def _finish(self) -> None:
        batch = self._leased.batch
        if batch.num_lines and batch.ending in UNANSWERED:
            code, message = UNANSWERED[batch.ending]
            recorded = await self._recorded_numbers()
            async for number, content in self._lines():
                if number not in recorded:
                    custom_id = parse_line(content, number=number).custom_id
                    line = failed_line(_new_line_id(), custom_id, code=code, message=message, number=number)
                    await self._leased.wait_for_room()
                    self._leased.add(LineResult(number=number, content=line, is_success=False))
        await self._leased.flush()
        await self._leased.change(self._parts.leases.finish)

    async def _recorded_numbers(self) -> Collection[int]:
        await self._leased.flush()
        return await self._parts.threads.call(self._parts.leases.recorded_numbers, self._leased.batch.batch_id)

    async def _lines(self) -> AsyncIterator[tuple[int, bytes]]:
        lines = self._read_lines()
        while some := await self._parts.threads.call(lambda: list(islice(lines, LINES_AT_ONCE))):
            for line in some:
                yield line

    def _read_lines(self) -> Iterator[tuple[int, bytes]]:
        chunks = self._parts.files.chunks(self._leased.batch.input_file_id)
        return split_lines(chunks, max_line_bytes=self._parts.max_line_bytes)


async def _race(first: Coroutine[Any, Any, object], second: Coroutine[Any, Any, object]) -> None:
    """Runs both until one ends or raises, then cancels the other and waits for it."""
    tasks = {asyncio.create_task(first), asyncio.create_task(second)}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()


def _usage_of(answer: Answer) -> TokenUsage:
    usage: dict[str, Any] = orjson.loads(answer.body).get("usage") or {}
    return TokenUsage(
        num_prompt_tokens=usage.get("prompt_tokens") or 0,
        num_cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
        num_completion_tokens=usage.get("completion_tokens") or 0,
    )


def _new_line_id() -> str:
    return f"batch_req_{secrets.token_hex(12)}"
