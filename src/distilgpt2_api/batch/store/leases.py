"""The workers' view of the store: a lease on a batch gives one worker at a time the right to change it."""

import json
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, insert, or_, select, update

from distilgpt2_api.batch.store.batches import read_batch
from distilgpt2_api.batch.store.files import CHUNK_BYTES, append_chunk, insert_file
from distilgpt2_api.batch.store.objects import (
    OPEN_STATUSES,
    BatchStatus,
    FilePurpose,
    InputError,
    LineResult,
    StoredBatch,
    StoredFile,
    StoreLimits,
    new_file_id,
)
from distilgpt2_api.batch.store.store import Store
from distilgpt2_api.batch.store.tables import BATCHES, RESULTS

LEASE_S = 10.0
"""A worker that doesn't renew its lease for this long loses the batch. The clocks of machines that share a store must
differ by less."""


class LeaseLostError(Exception):
    """Another worker has the batch now. Nothing was written."""


class Leases:
    """Claims batches, and changes those that were claimed.

    Each claim creates a new lease, even for the same process. Each method is one transaction, renews the lease, and may
    be called again after an error: a commit whose acknowledgment was lost is not repeated.
    When a worker dies, its lease expires and another worker takes the batch over. If the first one wakes up later, it
    finds its lease lost and can write nothing. So each line has one result, however often it was computed.
    """

    def __init__(self, store: Store, limits: StoreLimits, clock: Callable[[], float]) -> None:
        self._store = store
        self._limits = limits
        self._clock = clock

    def claim(self, *, callers: Collection[str] = (), held: Collection[str] = ()) -> StoredBatch | None:
        """The oldest batch without a valid lease, or None; batches of other callers than `callers` go first.

        `held`: ids of batches that this process works on; they are skipped even if their leases have expired.
        """
        now_s = self._clock()
        is_free = or_(BATCHES.c.owner.is_(None), BATCHES.c.lease_expires_s <= now_s)
        order = [BATCHES.c.caller.in_(list(callers)), BATCHES.c.created_s, BATCHES.c.batch_id]
        free = (
            select(BATCHES)
            .where(BATCHES.c.status.in_(OPEN_STATUSES), is_free, BATCHES.c.batch_id.not_in(list(held)))
            .order_by(*order)
            .limit(1)
        )
        with self._store.reading() as connection:
            row = connection.execute(free).mappings().one_or_none()
        if row is None:
            return None
        with self._store.writing() as connection:
            taken = connection.execute(
                update(BATCHES)
                .where(BATCHES.c.batch_id == row["batch_id"], BATCHES.c.status.in_(OPEN_STATUSES), is_free)
                .values(owner=secrets.token_hex(16), lease_expires_s=now_s + LEASE_S)
            )
            return read_batch(connection, row["batch_id"]) if taken.rowcount else None

    def renew(self, held: StoredBatch) -> StoredBatch:
        """The batch's current state. Raises LeaseLostError, as do all methods below."""
        with self._store.writing() as connection:
            return self._change(connection, held)

    def give_back(self, held: StoredBatch) -> None:
        """Lets another worker claim the batch at once. A lost lease is no error."""
        with self._store.writing() as connection:
            connection.execute(update(BATCHES).where(*_is_held(held)).values(owner=None, lease_expires_s=None))

    def begin(self, held: StoredBatch, *, num_lines: int) -> StoredBatch:
        """The input is valid."""
        return self._move(held, BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS, num_lines=num_lines)

    def fail(self, held: StoredBatch, errors: Sequence[InputError]) -> StoredBatch:
        """The input is invalid."""
        listed = json.dumps([asdict(error) for error in errors])
        return self._move(held, BatchStatus.VALIDATING, BatchStatus.FAILED, errors=listed)

    def expire(self, held: StoredBatch) -> StoredBatch:
        """The completion window is over: the remaining lines will not be answered."""
        ending = BatchStatus.EXPIRED.value
        return self._move(held, BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, ending=ending)

    def finalize(self, held: StoredBatch) -> StoredBatch:
        """All lines have results."""
        return self._move(held, BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING)

    def record(self, held: StoredBatch, results: Sequence[LineResult]) -> StoredBatch:
        """Writes results of lines, except of lines that have one already."""
        with self._store.writing() as connection:
            batch = self._change(connection, held)  # from here on no other worker writes results for it
            is_among = RESULTS.c.number.in_([result.number for result in results])
            recorded = _recorded_numbers(connection, batch.batch_id, is_among)
            new = [result for result in results if result.number not in recorded]
            if not new:
                return batch
            rows = [
                {"batch_id": batch.batch_id, "number": r.number, "is_success": r.is_success, "content": r.content}
                for r in new
            ]
            connection.execute(insert(RESULTS), rows)
            return self._change(
                connection,
                held,
                num_completed=BATCHES.c.num_completed + sum(result.is_success for result in new),
                num_failed=BATCHES.c.num_failed + sum(not result.is_success for result in new),
                num_prompt_tokens=BATCHES.c.num_prompt_tokens + sum(r.usage.num_prompt_tokens for r in new),
                num_cached_tokens=BATCHES.c.num_cached_tokens + sum(r.usage.num_cached_tokens for r in new),
                num_completion_tokens=BATCHES.c.num_completion_tokens + sum(r.usage.num_completion_tokens for r in new),
            )

    def recorded_numbers(self, batch_id: str) -> set[int]:
        """The numbers of the lines that have results."""
        with self._store.reading() as connection:
            return _recorded_numbers(connection, batch_id)

    def finish(self, held: StoredBatch) -> StoredBatch:
        """Writes the results to files, in the order of the input, and ends the batch: all or nothing."""
        now_s = self._clock()
        with self._store.writing() as connection:
            batch = self._change(connection, held)
            if not batch.is_open:  # committed before, but the acknowledgment was lost
                return batch
            output_file_id = self._write_file(connection, batch, now_s, is_success=True)
            error_file_id = self._write_file(connection, batch, now_s, is_success=False)
            connection.execute(delete(RESULTS).where(RESULTS.c.batch_id == batch.batch_id))
            return self._change(
                connection,
                held,
                status=batch.ending.value,
                output_file_id=output_file_id,
                error_file_id=error_file_id,
                **{f"{batch.ending}_s": now_s},
            )

    def _write_file(self, connection: Connection, batch: StoredBatch, now_s: float, *, is_success: bool) -> str | None:
        """The id of the file, or None if there is nothing to write."""
        file_id = new_file_id()
        expiry_s = self._limits.expiry_s if batch.output_expiry_s is None else batch.output_expiry_s
        name = "output" if is_success else "error"
        file = StoredFile(
            file_id=file_id,
            caller=batch.caller,
            filename=f"{batch.batch_id}_{name}.jsonl",
            purpose=FilePurpose.BATCH_OUTPUT,
            created_s=now_s,
            expires_s=now_s + expiry_s,
        )
        results = (
            select(RESULTS.c.content)
            .where(RESULTS.c.batch_id == batch.batch_id, RESULTS.c.is_success.is_(is_success))
            .order_by(RESULTS.c.number)
            .execution_options(yield_per=256)
        )
        pieces: list[bytes] = []
        num_bytes = 0
        has_begun = False
        for content in connection.execute(results).scalars():
            if not has_begun:
                insert_file(connection, file, is_complete=True)
                has_begun = True
            pieces.append(content)
            num_bytes += len(content)
            if num_bytes >= CHUNK_BYTES:
                append_chunk(connection, file_id, b"".join(pieces))
                pieces, num_bytes = [], 0
        if pieces:
            append_chunk(connection, file_id, b"".join(pieces))
        return file_id if has_begun else None

    def _move(self, held: StoredBatch, before: BatchStatus, after: BatchStatus, **values: Any) -> StoredBatch:
        """Changes the status if it is still `before`; a batch cancelled in the meantime stays cancelled."""
        now_s = self._clock()
        with self._store.writing() as connection:
            batch = self._change(connection, held)
            if batch.status is not before:
                return batch
            return self._change(connection, held, status=after.value, **{f"{after}_s": now_s}, **values)

    def _change(self, connection: Connection, held: StoredBatch, **values: Any) -> StoredBatch:
        """Keeps the lease even when the batch ends, so that the worker that ended it may repeat its last call."""
        changed = connection.execute(
            update(BATCHES).where(*_is_held(held)).values(lease_expires_s=self._clock() + LEASE_S, **values)
        )
        if not changed.rowcount:
            raise LeaseLostError(held.batch_id)
        return read_batch(connection, held.batch_id)


def _is_held(held: StoredBatch) -> tuple[ColumnElement[bool], ...]:
    assert held.owner is not None, "the batch was claimed"
    return BATCHES.c.batch_id == held.batch_id, BATCHES.c.owner == held.owner


def _recorded_numbers(connection: Connection, batch_id: str, *conditions: ColumnElement[bool]) -> set[int]:
    numbers = select(RESULTS.c.number).where(RESULTS.c.batch_id == batch_id, *conditions)
    return set(connection.execute(numbers).scalars())
