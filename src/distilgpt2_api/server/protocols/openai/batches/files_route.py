"""`/v1/files`: the files that batches read and write."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from distilgpt2_api.batch.store.objects import FilePurpose, StoredFile
from distilgpt2_api.batch.store.ports import BatchService
from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.server.http.requests.body import INTEGER
from distilgpt2_api.server.http.requests.record import request_record
from distilgpt2_api.server.http.responses.responses import DisconnectWatcher
from distilgpt2_api.server.protocols.openai.batches.files_schema import (
    MAX_EXPIRY_S,
    MIN_EXPIRY_S,
    DeletedFile,
    FileList,
    FileObject,
    file_object,
)
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS
from distilgpt2_api.server.schema.query import checked_router
from distilgpt2_api.server.service import BatchServiceDep, ServiceDep, owner_of

PIECE_BYTES = 1 << 18
MAX_FILENAME_LENGTH = 255
PURPOSE, ANCHOR, SECONDS = "purpose", "expires_after[anchor]", "expires_after[seconds]"
UPLOAD_SCHEMA = {
    "type": "object",
    "required": ["file", PURPOSE],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "JSON Lines, one request of a batch per line."},
        PURPOSE: {"type": "string", "enum": [FilePurpose.BATCH.value]},
        ANCHOR: {"type": "string", "enum": ["created_at"]},
        SECONDS: {"type": "integer", "minimum": MIN_EXPIRY_S, "maximum": MAX_EXPIRY_S},
    },
    "dependentRequired": {ANCHOR: [SECONDS], SECONDS: [ANCHOR]},
    "additionalProperties": False,
}
UPLOAD_BODY = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": UPLOAD_SCHEMA}}}}
CONTENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file's content.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
router = checked_router("Batches")


@router.post(
    "/v1/files",
    summary="Upload a file",
    responses=OPENAI_ERRORS.responses(400, 404, 408, 413, 415, 429, 503),
    openapi_extra=UPLOAD_BODY,
)
async def create_file(http: Request, service: ServiceDep, batch_service: BatchServiceDep) -> FileObject:
    """OpenAI's upload, with the purpose `batch`. The file is visible only to requests with the same API key."""
    # Imported here: the parser's package is installed only with the batch store.
    from distilgpt2_api.server.http.requests.multipart_form import UploadForm  # noqa: PLC0415 - the reason stands above

    form = UploadForm(
        http,
        max_file_bytes=batch_service.max_file_bytes,
        timeout_s=service.limits.body_timeout_s,
        uploads=service.uploads,
    )
    caller = owner_of(http, service)
    file_id = await batch_service.threads.call(batch_service.files.begin, caller=caller)
    is_finished = False
    try:
        async with aclosing(_merged(form.pieces())) as pieces:
            async for piece in pieces:
                await batch_service.threads.call(batch_service.files.append, file_id, caller=caller, content=piece)
        expiry_s = _check_fields(form.fields)
        if form.filename is None:
            raise InvalidRequestError("file is required", param="file")
        file = await batch_service.threads.call(
            batch_service.files.finish, file_id, filename=form.filename[:MAX_FILENAME_LENGTH], expiry_s=expiry_s
        )
        is_finished = True
    finally:
        if not is_finished:
            await batch_service.threads.call(batch_service.files.discard, file_id)
    return file_object(file)


@router.get("/v1/files", summary="List files", responses=OPENAI_ERRORS.responses(400, 404, 503))
async def list_files(
    http: Request,
    service: ServiceDep,
    batch_service: BatchServiceDep,
    *,
    purpose: Annotated[Literal["batch", "batch_output"] | None, Query()] = None,
    after: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Annotated[Literal["asc", "desc"], Query()] = "desc",
) -> FileList:
    """The caller's files, by creation time. `after` is the id of the previous page's last file."""
    page = await batch_service.threads.call(
        batch_service.files.list,
        caller=owner_of(http, service),
        purpose=purpose,
        after=after,
        limit=limit,
        is_ascending=order == "asc",
    )
    return FileList.of([file_object(file) for file in page.items], has_more=page.has_more)


@router.get("/v1/files/{file_id}", summary="Describe a file", responses=OPENAI_ERRORS.responses(404, 503))
async def read_file(http: Request, service: ServiceDep, batch_service: BatchServiceDep, file_id: str) -> FileObject:
    """One of the caller's files, without its content."""
    return file_object(await _find(http, service, batch_service, file_id))


@router.delete("/v1/files/{file_id}", summary="Delete a file", responses=OPENAI_ERRORS.responses(404, 409, 503))
async def delete_file(http: Request, service: ServiceDep, batch_service: BatchServiceDep, file_id: str) -> DeletedFile:
    """Delete a file. If a batch still has to read it, the answer is 409."""
    await batch_service.threads.call(batch_service.files.delete, file_id, caller=owner_of(http, service))
    return DeletedFile(id=file_id)


@router.get(
    "/v1/files/{file_id}/content",
    summary="Read a file",
    response_class=Response,
    responses=CONTENT | OPENAI_ERRORS.responses(404, 503),
)
async def read_content(http: Request, service: ServiceDep, batch_service: BatchServiceDep, file_id: str) -> Response:
    """A file's content."""
    file = await _find(http, service, batch_service, file_id)
    return FileContent(batch_service, file, is_head=http.method == "HEAD")


class FileContent(Response):
    """A file, read from the store as fast as the client takes it."""

    def __init__(self, batch_service: BatchService, file: StoredFile, *, is_head: bool) -> None:
        super().__init__()
        self._batch_service = batch_service
        self._file = file
        self._is_head = is_head

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with DisconnectWatcher(receive, on_disconnect=lambda: None) as client:
            request_record(scope).is_disconnect = not await self._send(send, client)

    async def _send(self, send: Send, client: DisconnectWatcher) -> bool:
        """Return False if the client hung up before the end."""
        file, threads = self._file, self._batch_service.threads
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", b"%d" % file.num_bytes),
            (b"content-disposition", f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}".encode()),
        ]
        chunks = iter(()) if self._is_head else self._batch_service.files.chunks(file.file_id)
        chunk = await threads.call(next, chunks, b"")
        if client.is_disconnected:
            return False
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        has_more = True
        while has_more:
            # The next chunk is read before this one is sent, because `more_body` must be false with the last byte.
            following = await threads.call(next, chunks, b"")
            if client.is_disconnected:
                return False
            has_more = bool(following)
            await send({"type": "http.response.body", "body": chunk, "more_body": has_more})
            chunk = following
        return True


async def _find(http: Request, service: ServiceDep, batch_service: BatchServiceDep, file_id: str) -> StoredFile:
    return await batch_service.threads.call(batch_service.files.find, file_id, caller=owner_of(http, service))


async def _merged(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """The same bytes in larger pieces, so that each is worth a transaction."""
    gathered = bytearray()
    async for piece in pieces:
        gathered += piece
        if len(gathered) >= PIECE_BYTES:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


def _check_fields(fields: dict[str, str]) -> float | None:
    """Seconds for which the file is kept; None: the form does not set it. Raises InvalidRequestError."""
    for name in fields:
        if name not in (PURPOSE, ANCHOR, SECONDS):
            raise InvalidRequestError(f"unknown parameter: {name[:100]!r}", param=name[:100])
    if PURPOSE not in fields:
        raise InvalidRequestError("purpose is required", param=PURPOSE)
    if fields[PURPOSE] != FilePurpose.BATCH:
        raise InvalidRequestError(f"purpose must be {FilePurpose.BATCH.value}", param=PURPOSE)
    if ANCHOR not in fields and SECONDS not in fields:
        return None
    if fields.get(ANCHOR) != "created_at":
        raise InvalidRequestError(f"{ANCHOR} must be created_at", param=ANCHOR)
    text = fields.get(SECONDS, "")
    seconds = int(text) if INTEGER.fullmatch(text) else 0
    if not MIN_EXPIRY_S <= seconds <= MAX_EXPIRY_S:
        raise InvalidRequestError(f"{SECONDS} must be an integer from {MIN_EXPIRY_S} to {MAX_EXPIRY_S}", param=SECONDS)
    return float(seconds)
