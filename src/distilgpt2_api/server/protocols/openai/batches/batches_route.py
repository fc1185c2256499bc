"""`/v1/batches`: files of requests, which run at a lower priority than all other requests."""

from typing import Annotated

from fastapi import Query
from starlette.requests import Request

from distilgpt2_api.batch.store.objects import NewBatch
from distilgpt2_api.server.http.requests.body import read_json_object
from distilgpt2_api.server.protocols.openai.batches.batches_schema import Batch, BatchList, BatchRequest, batch_object
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS
from distilgpt2_api.server.schema.openapi_fragments import json_body
from distilgpt2_api.server.schema.query import checked_router
from distilgpt2_api.server.schema.validation import validate_body
from distilgpt2_api.server.service import BatchServiceDep, ServiceDep, owner_of

router = checked_router("Batches")


@router.post(
    "/v1/batches",
    summary="Create a batch",
    responses=OPENAI_ERRORS.responses(400, 404, 408, 413, 415, 429, 503),
    openapi_extra=json_body(BatchRequest),
)
async def create_batch(http: Request, service: ServiceDep, batch_service: BatchServiceDep) -> Batch:
    """OpenAI's batches: each line of a file is answered exactly once, within 24 hours, across restarts."""
    request = validate_body(BatchRequest, await read_json_object(http, service.limits, service.uploads))
    expiry = request.output_expires_after
    new = NewBatch(
        caller=owner_of(http, service),
        endpoint=request.endpoint,
        input_file_id=request.input_file_id,
        metadata=request.metadata,
        model=service.model.shown_name,
        output_expiry_s=None if expiry is None else float(expiry.seconds),
    )
    batch = await batch_service.threads.call(batch_service.batches.create, new)
    batch_service.worker.wake()
    return batch_object(batch)


@router.get("/v1/batches", summary="List batches", responses=OPENAI_ERRORS.responses(400, 404, 503))
async def list_batches(
    http: Request,
    service: ServiceDep,
    batch_service: BatchServiceDep,
    *,
    after: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> BatchList:
    """The caller's batches, newest first. `after` is the id of the previous page's last batch."""
    page = await batch_service.threads.call(
        batch_service.batches.list, caller=owner_of(http, service), after=after, limit=limit
    )
    return BatchList.of([batch_object(batch) for batch in page.items], has_more=page.has_more)


@router.get("/v1/batches/{batch_id}", summary="Describe a batch", responses=OPENAI_ERRORS.responses(404, 503))
async def read_batch(http: Request, service: ServiceDep, batch_service: BatchServiceDep, batch_id: str) -> Batch:
    """A batch's status."""
    return batch_object(
        await batch_service.threads.call(batch_service.batches.find, batch_id, caller=owner_of(http, service))
    )


@router.post(
    "/v1/batches/{batch_id}/cancel", summary="Cancel a batch", responses=OPENAI_ERRORS.responses(404, 409, 503)
)
async def cancel_batch(http: Request, service: ServiceDep, batch_service: BatchServiceDep, batch_id: str) -> Batch:
    """Cancel a batch. Lines that are already answered keep their answers."""
    batch = await batch_service.threads.call(batch_service.batches.cancel, batch_id, caller=owner_of(http, service))
    batch_service.worker.wake()
    return batch_object(batch)
