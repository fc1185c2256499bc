"""OpenAI's `File` objects."""

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field

from distilgpt2_api.batch.store.objects import StoredFile
from distilgpt2_api.server.schema.deferred_model import DeferredModel

MIN_EXPIRY_S = 3600
MAX_EXPIRY_S = 2_592_000


class FileObject(DeferredModel):
    """OpenAI's `OpenAIFile`."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int = Field(description="Unix time in seconds, like all times.")
    expires_at: int | None = None
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"] = "processed"


class ObjectList(DeferredModel):
    """One page of a caller's objects."""

    object: Literal["list"] = "list"
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, data: Sequence[Any], *, has_more: bool) -> Self:
        first_id, last_id = (data[0].id, data[-1].id) if data else (None, None)
        return cls.model_validate({"data": data, "first_id": first_id, "last_id": last_id, "has_more": has_more})


class FileList(ObjectList):
    """OpenAI's `ListFilesResponse`."""

    data: list[FileObject]


class DeletedFile(DeferredModel):
    """OpenAI's `DeleteFileResponse`."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


def file_object(file: StoredFile) -> FileObject:
    return FileObject(
        id=file.file_id,
        bytes=file.num_bytes,
        created_at=int(file.created_s),
        expires_at=None if file.expires_s is None else int(file.expires_s),
        filename=file.filename,
        purpose=file.purpose.value,
    )
