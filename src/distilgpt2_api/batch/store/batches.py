"""The callers' view of batches in the store."""

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, delete, func, insert, select, update

from distilgpt2_api.batch.store.files import find_file
from distilgpt2_api.batch.store.objects import (
    OPEN_STATUSES,
    STAMPED_STATUSES,
    WINDOW_S,
    BatchStatus,
    FilePurpose,
    InputError,
    NewBatch,
    Page,
    StoredBatch,
    StoreLimits,
    TokenUsage,
    new_batch_id,
)
from distilgpt2_api.batch.store.paging import read_page
from distilgpt2_api.batch.store.store import Store
from distilgpt2_api.batch.store.tables import BATCHES
from distilgpt2_api.core.errors import ConflictError, InvalidRequestError, NotFoundError, QuotaError


class Batches:
    """Each method is one transaction."""

    def __init__(self, store: Store, limits: StoreLimits, clock: Callable[[], float]) -> None:
        self._store = store
        self._limits = limits
        self._clock = clock

    def create(self, new: NewBatch) -> StoredBatch:
        """Raises NotFoundError for the file, InvalidRequestError if it is not a batch's input, QuotaError."""
        now_s = self._clock()
        batch_id = new_batch_id()
        with self._store.writing() as connection:
            file = find_file(connection, new.input_file_id, caller=new.caller, now_s=now_s, param="input_file_id")
            if file.purpose is not FilePurpose.BATCH:
                raise InvalidRequestError(
                    f"{file.file_id} has the purpose {file.purpose.value}: a batch needs a file with the purpose"
                    f" {FilePurpose.BATCH.value}",
                    param="input_file_id",
                )
            self._check_quota(connection, new.caller)
            values = asdict(new) | {"metadata": None if new.metadata is None else json.dumps(dict(new.metadata))}
            connection.execute(
                insert(BATCHES).values(
                    **values,
                    batch_id=batch_id,
                    status=BatchStatus.VALIDATING.value,
                    ending=BatchStatus.COMPLETED.value,
                    created_s=now_s,
                    expires_s=now_s + WINDOW_S,
                    errors="[]",
                )
            )
            return read_batch(connection, batch_id)

    def find(self, batch_id: str, *, caller: str) -> StoredBatch:
        """Raises NotFoundError."""
        with self._store.reading() as connection:
            return self._find(connection, batch_id, caller)

    def list(self, *, caller: str, after: str | None, limit: int) -> Page[StoredBatch]:
        """The newest first. Raises NotFoundError if there is no batch `after`."""
        with self._store.reading() as connection:
            if after is not None:
                self._find(connection, after, caller, param="after")
            own = [BATCHES.c.caller == caller]
            key = BATCHES.c.batch_id
            rows, has_more = read_page(connection, BATCHES, key, own, after=after, limit=limit, is_ascending=False)
        return Page(items=[batch_of(row) for row in rows], has_more=has_more)

    def cancel(self, batch_id: str, *, caller: str) -> StoredBatch:
        """Starts to cancel the batch; answers so far are kept.

        Raises NotFoundError; ConflictError if the batch has ended or is finalizing.
        """
        with self._store.writing() as connection:
            batch = self._find(connection, batch_id, caller)
            if batch.status is BatchStatus.CANCELLING:
                return batch
            if batch.status not in (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS):
                raise ConflictError(f"the batch is {batch.status.value} and can't be cancelled", param="batch_id")
            connection.execute(
                update(BATCHES)
                .where(BATCHES.c.batch_id == batch_id, BATCHES.c.status == batch.status.value)
                .values(
                    status=BatchStatus.CANCELLING.value,
                    ending=BatchStatus.CANCELLED.value,
                    cancelling_s=self._clock(),
                )
            )
            return read_batch(connection, batch_id)

    def sweep(self) -> None:
        """Deletes batches that ended more than `expiry_s` ago."""
        ended_s = func.coalesce(*(BATCHES.c[f"{s}_s"] for s in STAMPED_STATUSES if s not in OPEN_STATUSES))
        with self._store.writing() as connection:
            connection.execute(
                delete(BATCHES).where(
                    and_(BATCHES.c.status.not_in(OPEN_STATUSES), ended_s <= self._clock() - self._limits.expiry_s)
                )
            )

    def _find(self, connection: Connection, batch_id: str, caller: str, *, param: str = "batch_id") -> StoredBatch:
        own = [BATCHES.c.batch_id == batch_id, BATCHES.c.caller == caller]
        row = connection.execute(select(BATCHES).where(*own)).mappings().one_or_none()
        if row is None:
            raise NotFoundError(f"no such batch: {batch_id[:100]!r}", param=param)
        return batch_of(row)

    def _check_quota(self, connection: Connection, caller: str) -> None:
        own = [BATCHES.c.caller == caller, BATCHES.c.status.in_(OPEN_STATUSES)]
        num_open = connection.execute(select(func.count()).select_from(BATCHES).where(*own)).scalar_one()
        if num_open >= self._limits.max_open_batches:
            raise QuotaError(
                f"you have {num_open} batches that have not ended; the limit is {self._limits.max_open_batches}"
            )


def read_batch(connection: Connection, batch_id: str) -> StoredBatch:
    """The batch must exist."""
    return batch_of(connection.execute(select(BATCHES).where(BATCHES.c.batch_id == batch_id)).mappings().one())


def batch_of(row: RowMapping) -> StoredBatch:
    stamps = {status: row[f"{status}_s"] for status in STAMPED_STATUSES}
    parsed: dict[str, Any] = {
        "status": BatchStatus(row["status"]),
        "ending": BatchStatus(row["ending"]),
        "stamps": {status: stamp for status, stamp in stamps.items() if stamp is not None},
        "metadata": None if row["metadata"] is None else json.loads(row["metadata"]),
        "errors": tuple(InputError(**error) for error in json.loads(row["errors"])),
        "usage": TokenUsage(**{field.name: row[field.name] for field in fields(TokenUsage)}),
    }
    plain = {field.name: row[field.name] for field in fields(StoredBatch) if field.name not in parsed}
    return StoredBatch(**plain, **parsed)
