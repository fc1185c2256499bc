"""Files in the store: complete ones, and uploads in progress."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, or_, select, update

from distilgpt2_api.batch.store.objects import (
    OPEN_STATUSES,
    FilePurpose,
    Page,
    StoredFile,
    StoreLimits,
    new_file_id,
)
from distilgpt2_api.batch.store.paging import read_page
from distilgpt2_api.batch.store.store import Store
from distilgpt2_api.batch.store.tables import BATCHES, CHUNKS, FILES
from distilgpt2_api.core.errors import ConflictError, NotFoundError, QuotaError, StoreError

CHUNK_BYTES = 1 << 18
UPLOAD_S = 3600.0
"""An upload that takes longer is deleted."""


class Files:
    """Each method is one transaction. An expired file is invisible even before it is swept."""

    def __init__(self, store: Store, limits: StoreLimits, clock: Callable[[], float]) -> None:
        self._store = store
        self._limits = limits
        self._clock = clock

    def begin(self, *, caller: str) -> str:
        """The id of a new, empty file, which is invisible until `finish`. Raises QuotaError."""
        file_id = new_file_id()
        with self._store.writing() as connection:
            self._check_quota(connection, caller, num_more_files=1)
            file = StoredFile(
                file_id=file_id, caller=caller, filename="", purpose=FilePurpose.BATCH, created_s=self._clock()
            )
            insert_file(connection, file, is_complete=False)
        return file_id

    def append(self, file_id: str, *, caller: str, content: bytes) -> None:
        """Raises QuotaError if the caller's files would be too large."""
        with self._store.writing() as connection:
            append_chunk(connection, file_id, content)
            self._check_quota(connection, caller)

    def finish(self, file_id: str, *, filename: str, expiry_s: float | None) -> StoredFile:
        """Completes an upload. `expiry_s`: the file's lifetime; None: the limits' default."""
        with self._store.writing() as connection:
            created_s = connection.execute(select(FILES.c.created_s).where(FILES.c.file_id == file_id)).scalar_one()
            expires_s = created_s + (self._limits.expiry_s if expiry_s is None else expiry_s)
            connection.execute(
                update(FILES)
                .where(FILES.c.file_id == file_id)
                .values(is_complete=True, filename=filename, expires_s=expires_s)
            )
            row = connection.execute(select(FILES).where(FILES.c.file_id == file_id)).mappings().one()
            return file_of(row)

    def discard(self, file_id: str) -> None:
        """Deletes an incomplete upload. Idempotent."""
        with self._store.writing() as connection:
            connection.execute(delete(FILES).where(FILES.c.file_id == file_id, ~FILES.c.is_complete))

    def find(self, file_id: str, *, caller: str) -> StoredFile:
        """Raises NotFoundError."""
        with self._store.reading() as connection:
            return find_file(connection, file_id, caller=caller, now_s=self._clock())

    def list(
        self, *, caller: str, purpose: str | None, after: str | None, limit: int, is_ascending: bool
    ) -> Page[StoredFile]:
        """Raises NotFoundError if there is no file `after`."""
        own = [*_visible(self._clock()), FILES.c.caller == caller]
        if purpose is not None:
            own.append(FILES.c.purpose == purpose)
        with self._store.reading() as connection:
            if after is not None:
                find_file(connection, after, caller=caller, now_s=self._clock(), param="after")
            rows, has_more = read_page(
                connection, FILES, FILES.c.file_id, own, after=after, limit=limit, is_ascending=is_ascending
            )
        return Page(items=[file_of(row) for row in rows], has_more=has_more)

    def delete(self, file_id: str, *, caller: str) -> None:
        """Raises NotFoundError; ConflictError while an open batch needs it."""
        with self._store.writing() as connection:
            find_file(connection, file_id, caller=caller, now_s=self._clock())
            reader = connection.execute(
                select(BATCHES.c.batch_id)
                .where(BATCHES.c.input_file_id == file_id, BATCHES.c.status.in_(OPEN_STATUSES))
                .limit(1)
            ).scalar()
            if reader is not None:
                raise ConflictError(f"{file_id} is the input of {reader}, which has not ended: cancel the batch first")
            connection.execute(delete(FILES).where(FILES.c.file_id == file_id))

    def chunks(self, file_id: str) -> Iterator[bytes]:
        """Yields the content in pieces, each read when needed. Raises StoreError if the file is deleted meanwhile."""
        with self._store.reading() as connection:
            num_chunks = connection.execute(select(FILES.c.num_chunks).where(FILES.c.file_id == file_id)).scalar()
        for position in range(num_chunks or 0):
            with self._store.reading() as connection:
                content = connection.execute(
                    select(CHUNKS.c.content).where(CHUNKS.c.file_id == file_id, CHUNKS.c.position == position)
                ).scalar()
            if content is None:
                raise StoreError(f"{file_id} was deleted while it was read")
            yield content

    def sweep(self) -> None:
        """Deletes expired files and abandoned uploads, except inputs of open batches."""
        now_s = self._clock()
        inputs = select(BATCHES.c.input_file_id).where(BATCHES.c.status.in_(OPEN_STATUSES))
        with self._store.writing() as connection:
            connection.execute(
                delete(FILES).where(
                    or_(
                        FILES.c.expires_s <= now_s,
                        (~FILES.c.is_complete) & (FILES.c.created_s <= now_s - UPLOAD_S),
                    ),
                    FILES.c.file_id.not_in(inputs),
                )
            )

    def _check_quota(self, connection: Connection, caller: str, *, num_more_files: int = 0) -> None:
        num_files, num_bytes = connection.execute(
            select(func.count(), func.coalesce(func.sum(FILES.c.num_bytes), 0)).where(FILES.c.caller == caller)
        ).one()
        if num_files + num_more_files > self._limits.max_files:
            raise QuotaError(f"you have {num_files} files; the limit is {self._limits.max_files}: delete some first")
        if num_bytes > self._limits.max_bytes:
            raise QuotaError(
                f"your files would have more than {self._limits.max_bytes} bytes in total: delete some first"
            )


def insert_file(connection: Connection, file: StoredFile, *, is_complete: bool) -> None:
    values = asdict(file) | {"purpose": file.purpose.value, "num_chunks": 0, "is_complete": is_complete}
    connection.execute(insert(FILES).values(**values))


def append_chunk(connection: Connection, file_id: str, content: bytes) -> None:
    """Raises StoreError if the file was swept as an abandoned upload."""
    position = connection.execute(select(FILES.c.num_chunks).where(FILES.c.file_id == file_id)).scalar()
    if position is None:
        raise StoreError(f"the upload of {file_id} took too long")
    connection.execute(insert(CHUNKS).values(file_id=file_id, position=position, content=content))
    connection.execute(
        update(FILES)
        .where(FILES.c.file_id == file_id)
        .values(num_chunks=position + 1, num_bytes=FILES.c.num_bytes + len(content))
    )


def find_file(connection: Connection, file_id: str, *, caller: str, now_s: float, param: str = "file_id") -> StoredFile:
    """Raises NotFoundError with `param`."""
    own = [*_visible(now_s), FILES.c.file_id == file_id, FILES.c.caller == caller]
    row = connection.execute(select(FILES).where(*own)).mappings().one_or_none()
    if row is None:
        raise NotFoundError(f"no such file: {file_id[:100]!r}", param=param)
    return file_of(row)


def _visible(now_s: float) -> list[Any]:
    return [FILES.c.is_complete, or_(FILES.c.expires_s.is_(None), FILES.c.expires_s > now_s)]


def file_of(row: RowMapping) -> StoredFile:
    columns = {field.name: row[field.name] for field in fields(StoredFile)}
    return StoredFile(**columns | {"purpose": FilePurpose(row["purpose"])})
